// SPDX-License-Identifier: GPL-3.0-or-later
//! Intrusive lists. The nodes live inside the listed objects, so linking never allocates and never
//! fails. A node unlinks itself without knowing its list. A list belongs to one thread, the event
//! loop, or, for a group's rings, to the thread that holds the group's lock.
//!
//! A linked node points at its neighbours and at the list itself. So no `&mut` may cover a list or
//! a node while anything is linked. A node enters a list as a raw pointer, which must be valid for
//! everything that is reached through it later. So a job's link is derived from the job's own
//! pointer ([`JobPtr::link`](crate::job::JobPtr::link)), not from a reference to the link alone.
//!
//! A [`Head`] is one pointer, for lists that are many and whose order does not matter: it pushes to
//! the front. A [`Ring`] is two pointers, and keeps the order.

use std::cell::Cell;
use std::mem::offset_of;
use std::ptr;

use crate::symbol::Field;

/// The start of a list. It must not move while anything is linked. All zero means empty.
#[derive(Debug)]
pub(crate) struct Head(Cell<*const Node>);

/// A node of a list. It must not move while it is linked, and must be unlinked before it is
/// dropped.
#[derive(Debug)]
pub(crate) struct Node {
    next: Cell<*const Node>,
    /// The pointer that points at this node: the head's, or the previous node's `next`. Null if the
    /// node is not linked.
    back: Cell<*const Cell<*const Node>>,
}

/// See [`layout`](crate::layout).
pub(crate) const LIST_LAYOUT: &[Field] = &[
    ("node.next", offset_of!(Node, next), size_of::<usize>()),
    ("link.next", offset_of!(Link, next), size_of::<usize>()),
    ("RING", size_of::<Ring>(), 0),
];

impl Head {
    /// An empty list. Outside of tests a list lies in zeroed memory.
    #[cfg(test)]
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

    /// Insert `node` at the front.
    ///
    /// # Safety
    /// `node` is not linked anywhere, and stays where it is until it is unlinked.
    pub(crate) unsafe fn push(&self, node: *const Node) {
        let first = self.0.get();
        // SAFETY: `node` is live by the caller's promise, and `first` because it is linked.
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

    /// Remove the node from its list, if it is in one.
    pub(crate) fn unlink(&self) {
        let back = self.back.get();
        if back.is_null() {
            return;
        }
        let next = self.next.get();
        // SAFETY: the neighbours of a linked node are linked, so they are live.
        unsafe {
            (*back).set(next);
            if !next.is_null() {
                (*next).back.set(back);
            }
        }
        self.back.set(ptr::null());
    }
}

/// A list that keeps the order of insertion. It must not move while anything is linked. All zero
/// means empty.
#[derive(Debug)]
pub(crate) struct Ring(Link);

/// A link of a [`Ring`]. It must not move while it is linked, and must be unlinked before it is
/// dropped.
///
/// The ring's own link comes before the first and after the last. All zero means not linked, or
/// never used.
#[derive(Debug)]
pub(crate) struct Link {
    next: Cell<*const Link>,
    previous: Cell<*const Link>,
}

impl Ring {
    /// An empty ring.
    pub(crate) const fn new() -> Self {
        Self(Link::new())
    }

    /// Whether nothing is linked.
    pub(crate) fn is_empty(&self) -> bool {
        self.first().is_null()
    }

    /// The first link, or null.
    pub(crate) fn first(&self) -> *const Link {
        self.after(&self.0)
    }

    /// The link after `link`, which is in this ring, or null.
    pub(crate) fn after(&self, link: &Link) -> *const Link {
        let next = link.next.get();
        if ptr::eq(next, &self.0) {
            ptr::null()
        } else {
            next
        }
    }

    /// Insert `link` at the end.
    ///
    /// # Safety
    /// `link` is not linked anywhere, and stays where it is until it is unlinked.
    pub(crate) unsafe fn push(&self, link: *const Link) {
        // SAFETY: guaranteed by the caller.
        unsafe { self.insert(self.end(), link) };
    }

    /// The place behind the last link, for [`Ring::insert`].
    pub(crate) fn end(&self) -> *const Link {
        let end: *const Link = &self.0;
        if self.0.previous.get().is_null() {
            self.0.previous.set(end);
            self.0.next.set(end);
        }
        end
    }

    /// Insert `link` before `at`, which is in this ring or its end.
    ///
    /// # Safety
    /// As for [`Ring::push`].
    pub(crate) unsafe fn insert(&self, at: *const Link, link: *const Link) {
        // SAFETY: `link` is live by the caller's promise, and the others because they are linked or
        // the ring's own.
        unsafe {
            let previous = (*at).previous.get();
            (*link).previous.set(previous);
            (*link).next.set(at);
            (*previous).next.set(link);
            (*at).previous.set(link);
        }
    }

    /// Insert `link` at the front.
    ///
    /// # Safety
    /// As for [`Ring::push`].
    pub(crate) unsafe fn push_first(&self, link: *const Link) {
        let end: *const Link = &self.0;
        let first = self.first();
        if first.is_null() {
            // SAFETY: guaranteed by the caller.
            return unsafe { self.push(link) };
        }
        // SAFETY: `link` is live by the caller's promise, and `first` because it is linked.
        unsafe {
            (*link).previous.set(end);
            (*link).next.set(first);
            (*first).previous.set(link);
        }
        self.0.next.set(link);
    }

    /// Move all links of `other` to the end, in their order.
    pub(crate) fn append(&self, other: &Self) {
        let (first, last) = (other.first(), other.0.previous.get());
        if first.is_null() {
            return;
        }
        let end: *const Link = &self.0;
        if self.0.previous.get().is_null() {
            self.0.previous.set(end);
        }
        let before = self.0.previous.get();
        // SAFETY: linked nodes are live.
        unsafe {
            (*before).next.set(first);
            (*first).previous.set(before);
            (*last).next.set(end);
        }
        self.0.previous.set(last);
        other.0.next.set(ptr::null());
        other.0.previous.set(ptr::null());
    }
}

impl Link {
    /// A link that is in no ring.
    pub(crate) const fn new() -> Self {
        Self {
            next: Cell::new(ptr::null()),
            previous: Cell::new(ptr::null()),
        }
    }

    /// Whether it is in a ring.
    pub(crate) fn is_linked(&self) -> bool {
        !self.next.get().is_null()
    }

    /// The link that [`Link::chain`] has set.
    pub(crate) fn chained(&self) -> *mut Self {
        self.next.get().cast_mut()
    }

    /// Make a link that is in no ring part of a chain, which has an end that the caller knows.
    pub(crate) fn chain(&self, next: *mut Self) {
        self.next.set(next);
    }

    /// The number that [`Link::set_tag`] has set.
    pub(crate) fn tag(&self) -> usize {
        self.previous.get().addr()
    }

    /// Note a number in a link that is in no ring.
    pub(crate) fn set_tag(&self, tag: usize) {
        self.previous.set(ptr::without_provenance(tag));
    }

    /// Remove the link from its ring, if it is in one.
    pub(crate) fn unlink(&self) {
        let (next, previous) = (self.next.get(), self.previous.get());
        if next.is_null() {
            return;
        }
        // SAFETY: the neighbours of a linked link are linked, so they are live.
        unsafe {
            (*next).previous.set(previous);
            (*previous).next.set(next);
        }
        self.next.set(ptr::null());
        self.previous.set(ptr::null());
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
            // SAFETY: the node is not linked, and outlives the list's use.
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

    fn order(ring: &Ring, links: &[Link]) -> Vec<usize> {
        let mut got = Vec::new();
        let mut at = ring.first();
        while !at.is_null() {
            got.extend(links.iter().position(|link| ptr::eq(link, at)));
            // SAFETY: linked links are live.
            at = ring.after(unsafe { &*at });
        }
        got
    }

    #[test]
    fn rings_keep_their_order() {
        let (ring, other) = (Ring::new(), Ring::new());
        let links: [Link; 6] = std::array::from_fn(|_| Link::new());
        assert!(ring.is_empty());
        ring.append(&other);
        assert!(ring.is_empty());
        for link in &links[..3] {
            // SAFETY: the link is not linked, and outlives the rings' use.
            unsafe { ring.push(link) };
        }
        for link in &links[3..] {
            // SAFETY: the link is not linked, and outlives the rings' use.
            unsafe { other.push(link) };
        }
        links[1].unlink();
        links[1].unlink();
        assert!(!links[1].is_linked() && links[0].is_linked());
        ring.append(&other);
        assert!(other.is_empty());
        assert_eq!(order(&ring, &links), [0, 2, 3, 4, 5]);
        links[5].unlink();
        links[0].unlink();
        // SAFETY: the link was unlinked above, and outlives the rings' use.
        unsafe { ring.push(&links[0]) };
        assert_eq!(order(&ring, &links), [2, 3, 4, 0]);
        // SAFETY: as above, for each of the two.
        unsafe {
            ring.insert(ring.end(), &links[1]);
            ring.insert(&links[1], &links[5]);
        }
        assert_eq!(order(&ring, &links), [2, 3, 4, 0, 5, 1]);
        for link in &links {
            link.unlink();
        }
        assert!(ring.is_empty());
        other.append(&ring);
        assert!(other.is_empty());
    }
}
