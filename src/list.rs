// SPDX-License-Identifier: GPL-3.0-or-later
//! An intrusive list: its nodes live inside what they list, so that linking never allocates and
//! never fails.
//!
//! One pointer for a head, two for a node; a node unlinks itself without knowing its list. Lists
//! belong to one thread, the event loop.

use std::cell::Cell;
use std::ptr;

/// Where a list begins. It must not move while anything is linked.
#[derive(Debug)]
pub(crate) struct Head(Cell<*const Node>);

/// A place in a list. It must not move while linked, and must be unlinked before it goes.
#[derive(Debug)]
pub(crate) struct Node {
    next: Cell<*const Node>,
    /// The cell that points at this node: a head's, or another node's `next`. Null: not linked.
    back: Cell<*const Cell<*const Node>>,
}

impl Head {
    /// An empty list.
    pub(crate) const fn new() -> Self {
        Self(Cell::new(ptr::null()))
    }

    /// Whether nothing is linked.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.get().is_null()
    }

    /// The first node, or null.
    pub(crate) fn first(&self) -> *const Node {
        self.0.get()
    }

    /// Put `node` first.
    ///
    /// # Safety
    /// `node` is not linked anywhere, and stays where it is until it is unlinked.
    pub(crate) unsafe fn push(&self, node: *const Node) {
        let first = self.0.get();
        // SAFETY: `node` is live by the caller's promise, `first` since it is linked.
        unsafe {
            (*node).next.set(first);
            (*node).back.set(&self.0);
            if !first.is_null() {
                (*first).back.set(&(*node).next);
            }
        }
        self.0.set(node);
    }
}

impl Node {
    /// A node that is in no list.
    pub(crate) const fn new() -> Self {
        Self {
            next: Cell::new(ptr::null()),
            back: Cell::new(ptr::null()),
        }
    }

    /// Whether it is in a list.
    pub(crate) fn is_linked(&self) -> bool {
        !self.back.get().is_null()
    }

    /// The node after this one, or null.
    pub(crate) fn next(&self) -> *const Node {
        self.next.get()
    }

    /// Leave the list, if in one.
    pub(crate) fn unlink(&self) {
        let back = self.back.get();
        if back.is_null() {
            return;
        }
        let next = self.next.get();
        // SAFETY: while this node is linked, so are its neighbours, and linked nodes are live.
        unsafe {
            (*back).set(next);
            if !next.is_null() {
                (*next).back.set(back);
            }
        }
        self.back.set(ptr::null());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_leave_from_anywhere() {
        let head = Head::new();
        let nodes: [Node; 3] = std::array::from_fn(|_| Node::new());
        for node in &nodes {
            // SAFETY: not linked, and outlives the list.
            unsafe { head.push(node) };
        }
        nodes[1].unlink();
        assert!(!nodes[1].is_linked());
        assert_eq!(head.first(), ptr::from_ref(&nodes[2]));
        assert_eq!(nodes[2].next(), ptr::from_ref(&nodes[0]));
        nodes[2].unlink();
        nodes[0].unlink();
        nodes[0].unlink();
        assert!(head.is_empty());
    }
}
