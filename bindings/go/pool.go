// SPDX-License-Identifier: GPL-3.0-or-later

// Package nuncstans hands events to threads, by the C library nunc-stans.
//
//	pool, err := nuncstans.New(nuncstans.Options{Workers: 4})
//	pool.Post(func() { ... })                                   // in a worker
//	pool.Every(time.Second, tick)
//	pool.OnSignal(syscall.SIGTERM, func(*nuncstans.Job) { pool.Shutdown() })
//	pool.Wait()
//	pool.Close()
package nuncstans

// #cgo CFLAGS: -O2 -Wall -Werror
// #cgo pkg-config: nunc-stans
// #include "bridge.h"
// #include <stdlib.h>
import "C"

import (
	"errors"
	"log"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// What C calls, by number.
var (
	handles    sync.Map
	lastHandle atomic.Uintptr
)

func remember(what any) C.uintptr_t {
	handle := C.uintptr_t(lastHandle.Add(1))
	handles.Store(handle, what)
	return handle
}

// Options of a pool. The zero value is a pool with one worker.
type Options struct {
	Workers    int    // threads that run callbacks; 0: one
	Name       string // prefix of the threads' names, at most 8 bytes
	Framework  string // "": epoll; "libevent", "tevent"
	QueueLimit int    // so many may wait for workers before Post returns ErrOverloaded; 0, or less: no limit
	StackSize  int
	OnPanic    func(*PanicError) // gets what leaves a callback; nil: package log
}

// What pools and groups have in common: jobs are added to them.
type adder struct {
	pool  *Pool
	group *Group
}

// Pool is an event loop and worker threads. Any goroutine may call its methods.
type Pool struct {
	adder
	onPanic func(*PanicError)
	// For reading while C is told of the pool, for writing when it ends.
	calls  sync.RWMutex
	raw    *C.ns_thrpool_t
	mu     sync.Mutex
	jobs   map[*Job]struct{}
	groups map[*Group]struct{}
}

// New makes a pool. Close it.
func New(options Options) (*Pool, error) {
	if options.Workers == 0 {
		options.Workers = 1
	}
	name, framework := C.CString(options.Name), C.CString(options.Framework)
	defer C.free(unsafe.Pointer(name))
	defer C.free(unsafe.Pointer(framework))
	raw := C.ns_go_new(C.size_t(options.Workers), C.size_t(options.StackSize), C.size_t(options.QueueLimit), name, framework)
	if raw == nil {
		return nil, check("New", C.NS_INVALID_REQUEST) // the log says why
	}
	p := &Pool{raw: raw, onPanic: options.OnPanic}
	p.pool = p
	if p.onPanic == nil {
		p.onPanic = func(thrown *PanicError) { log.Print("nunc-stans: ", thrown) }
	}
	return p, nil
}

// A call on the pool. Its end waits until all have returned.
func (p *Pool) call(name string, f func(raw *C.ns_thrpool_t) C.ns_result_t) error {
	p.calls.RLock()
	defer p.calls.RUnlock()
	if p.raw == nil {
		return check(name, C.NS_SHUTDOWN)
	}
	return check(name, f(p.raw))
}

// What C takes for a group, and whether it takes anything. The group's lock is held.
func (g *Group) live() (*C.struct_ns_group_t, C.ns_result_t) {
	if g == nil {
		return nil, C.NS_SUCCESS
	}
	if g.raw == nil {
		return nil, C.NS_SHUTDOWN
	}
	if g.cancelled {
		return nil, C.NS_DELETING
	}
	return g.raw, C.NS_SUCCESS
}

// Post calls f once, in a worker or, with InLoop, in the event loop.
func (a *adder) Post(f func(), how ...How) error {
	if f == nil {
		return check("Post", C.NS_INVALID_REQUEST)
	}
	flags := C.ns_job_type_t(C.NS_JOB_THREAD)
	if all(how)&InLoop != 0 {
		flags = C.NS_JOB_NONE
	}
	return a.pool.call("Post", func(tp *C.ns_thrpool_t) C.ns_result_t {
		if a.group != nil {
			a.group.mu.Lock()
			defer a.group.mu.Unlock()
		}
		group, result := a.group.live()
		if result != C.NS_SUCCESS {
			return result
		}
		handle := remember(&post{a, f})
		if result = C.ns_go_post(tp, group, flags, handle); result != C.NS_SUCCESS {
			handles.Delete(handle)
		}
		return result
	})
}

// Run is Post with a job, which can be armed again and cancelled.
func (a *adder) Run(callback func(*Job), how ...How) (*Job, error) {
	return a.add("Run", C.NS_GO_NOW, 0, timeval(0), 0, all(how), callback, nil)
}

// After calls when a time has passed.
func (a *adder) After(d time.Duration, callback func(*Job), how ...How) (*Job, error) {
	return a.add("After", C.NS_GO_TIME, 0, timeval(d), 0, all(how), callback, nil)
}

// Every calls whenever a time has passed, until the job is cancelled.
func (a *adder) Every(d time.Duration, callback func(*Job), how ...How) (*Job, error) {
	flags := C.ns_job_type_t(0)
	if all(how)&Cadence != 0 {
		flags = C.NS_JOB_CADENCE
	}
	return a.add("Every", C.NS_GO_TIME, 0, timeval(d), flags, all(how)|Persist, callback, nil)
}

// OnSignal calls when a signal has arrived. Meanwhile os/signal does not get it.
func (a *adder) OnSignal(signal syscall.Signal, callback func(*Job), how ...How) (*Job, error) {
	return a.add("OnSignal", C.NS_GO_SIGNAL, int(signal), timeval(0), 0, all(how), callback, nil)
}

// OnReady calls when a descriptor is ready for Read, Write or both, or the time is up (0: no limit). The library never
// closes it: keep it open until the job is over.
func (a *adder) OnReady(fd, directions int, limit time.Duration, callback func(*Job), how ...How) (*Job, error) {
	flags := C.ns_job_type_t(directions) | C.NS_JOB_PRESERVE_FD
	return a.add("OnReady", C.NS_GO_FD, fd, timeout(limit), flags, all(how), callback, nil)
}

// Await blocks the goroutine until a descriptor is ready, for Read, Write or both. False: the time is up. Not in callbacks
// that run InLoop.
func (a *adder) Await(fd, directions int, limit time.Duration) (bool, error) {
	gone, ready, ran := make(chan struct{}), false, false
	callback := func(j *Job) { ran, ready = true, !j.TimedOut() }
	flags := C.ns_job_type_t(directions) | C.NS_JOB_PRESERVE_FD
	_, err := a.add("Await", C.NS_GO_FD, fd, timeout(limit), flags, InLoop, callback, func() { close(gone) })
	if err != nil {
		return false, err
	}
	<-gone
	if !ran {
		return false, check("Await", C.NS_SHUTDOWN) // its pool or group has ended
	}
	return ready, nil
}

func (a *adder) add(call string, trigger C.enum_ns_go_trigger, number int, tv C.struct_timeval, flags C.ns_job_type_t, how How,
	callback func(*Job), gone func()) (*Job, error) {
	if callback == nil || int(C.int(number)) != number {
		return nil, check(call, C.NS_INVALID_REQUEST)
	}
	if how&InLoop == 0 {
		flags |= C.NS_JOB_THREAD
	}
	if how&Persist != 0 {
		flags |= C.NS_JOB_PERSIST
	}
	p := a.pool
	j := &Job{pool: p, group: a.group, callback: callback, how: how, armings: 1, gone: gone, mu: new(sync.Mutex)}
	if a.group != nil {
		j.mu = &a.group.mu
	}
	err := p.call(call, func(tp *C.ns_thrpool_t) C.ns_result_t {
		j.mu.Lock() // its first run waits for it
		defer j.mu.Unlock()
		group, result := a.group.live()
		if result != C.NS_SUCCESS {
			return result
		}
		handle := remember(j)
		added := C.ns_go_add(tp, group, trigger, C.int(number), tv, flags, handle)
		if added.job == nil {
			handles.Delete(handle)
		}
		if added.result == C.NS_SUCCESS {
			j.raw = added.job
		}
		return added.result
	})
	if err != nil {
		j = nil
	}
	return j, err
}

func all(how []How) (combined How) {
	for _, each := range how {
		combined |= each
	}
	return
}

// Shutdown begins to end the pool: from anywhere. What is queued still runs.
func (p *Pool) Shutdown() error {
	return p.call("Shutdown", func(tp *C.ns_thrpool_t) C.ns_result_t {
		C.ns_thrpool_shutdown(tp)
		return C.NS_SUCCESS
	})
}

// IsShutdown says whether it has begun to end.
func (p *Pool) IsShutdown() bool {
	return p.call("IsShutdown", func(tp *C.ns_thrpool_t) C.ns_result_t {
		return C.ns_result_t(C.ns_thrpool_is_shutdown(tp)) // 1 is NS_SHUTDOWN
	}) != nil
}

// Wait blocks until the pool has been shut down and no callback runs any more.
func (p *Pool) Wait() error {
	return p.call("Wait", func(tp *C.ns_thrpool_t) C.ns_result_t { return C.ns_thrpool_wait(tp) })
}

// Close shuts it down, waits for it, cancels what is left, and frees it. Not in its own callbacks: ErrThread.
func (p *Pool) Close() error {
	_ = p.Shutdown()
	err := p.Wait()
	if errors.Is(err, ErrThread) {
		return err
	}
	p.calls.Lock()
	raw := p.raw
	p.raw = nil
	p.calls.Unlock()
	if raw == nil {
		return nil // closed already
	}
	handles.Range(func(_, what any) bool {
		if j, ok := what.(*Job); ok && j.pool == p {
			j.Cancel()
		} else if g, ok := what.(*Group); ok && g.pool == p {
			g.Release()
		}
		return true
	})
	C.ns_thrpool_destroy(raw)
	p.forgetPosted(nil)
	return err
}

// Forget what was posted and will not run: of a group or, for nil, of all.
func (p *Pool) forgetPosted(group *Group) {
	handles.Range(func(handle, what any) bool {
		if posted, ok := what.(*post); ok && posted.where.pool == p && (group == nil || posted.where.group == group) {
			handles.Delete(handle)
		}
		return true
	})
}

// Group is jobs of which a number runs at once, in order. It ends when it was released and its jobs are over.
type Group struct {
	adder
	mu        sync.Mutex // of all its jobs, too
	raw       *C.struct_ns_group_t
	held      bool
	cancelled bool
}

// NewGroup makes a group of which so many callbacks run at once: 1 is one at a time, in order; 0 sets no limit and keeps
// no order.
func (p *Pool) NewGroup(width int) (*Group, error) {
	if width < 0 {
		return nil, check("NewGroup", C.NS_INVALID_REQUEST)
	}
	g := &Group{held: true}
	g.pool, g.group = p, g
	err := p.call("NewGroup", func(tp *C.ns_thrpool_t) C.ns_result_t {
		g.mu.Lock()
		defer g.mu.Unlock()
		handle := remember(g)
		result := C.ns_go_group_new(tp, C.size_t(width), handle, &g.raw)
		if result != C.NS_SUCCESS {
			handles.Delete(handle)
		}
		return result
	})
	if err != nil {
		g = nil
	}
	return g, err
}

//export goGroupGone
func goGroupGone(handle C.uintptr_t) {
	what, _ := handles.LoadAndDelete(handle)
	g := what.(*Group)
	g.mu.Lock()
	g.raw = nil
	g.mu.Unlock()
	g.pool.forgetPosted(g)
}

func (g *Group) do(name string, f func(raw *C.struct_ns_group_t) C.ns_result_t) error {
	return g.pool.call(name, func(*C.ns_thrpool_t) C.ns_result_t {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.raw == nil {
			return C.NS_SHUTDOWN
		}
		return f(g.raw)
	})
}

// Cancel finishes with all its jobs, and lets none in any more. True: none runs any more, but perhaps the caller.
func (g *Group) Cancel() (bool, error) {
	none := false
	err := g.do("Cancel", func(raw *C.struct_ns_group_t) C.ns_result_t {
		g.cancelled = true
		none = C.ns_group_cancel(raw) == C.NS_SUCCESS
		return C.NS_SUCCESS
	})
	g.pool.forgetPosted(g)
	return none, err
}

// Release gives it back: nothing more is added from outside its callbacks.
func (g *Group) Release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held && g.raw != nil {
		g.held = false
		C.ns_group_release(g.raw)
	}
}

// Wait blocks until none of its jobs is armed, queued or running; ErrTimeout: the time is up (0: no limit). Not in the
// event loop, nor in callbacks of its own: ErrInvalidState.
func (g *Group) Wait(limit time.Duration) error {
	tv := timeout(limit)
	until := &tv
	if limit == 0 {
		until = nil
	}
	return g.pool.call("Wait", func(*C.ns_thrpool_t) C.ns_result_t {
		g.mu.Lock()
		raw := g.raw
		if raw == nil {
			g.mu.Unlock()
			return C.NS_SHUTDOWN
		}
		C.ns_group_hold(raw)
		g.mu.Unlock()
		defer C.ns_group_release(raw)
		return C.ns_group_wait(raw, until)
	})
}

// Suspend lets no callback begin until Resume. Counted.
func (g *Group) Suspend() error {
	return g.do("Suspend", func(raw *C.struct_ns_group_t) C.ns_result_t { return C.ns_group_suspend(raw) })
}

// Resume takes one Suspend back.
func (g *Group) Resume() error {
	return g.do("Resume", func(raw *C.struct_ns_group_t) C.ns_result_t { return C.ns_group_resume(raw) })
}

// Limit lets Post return ErrOverloaded when so many wait, but not in a worker. 0, or less: no limit.
func (g *Group) Limit(most int) error {
	return g.do("Limit", func(raw *C.struct_ns_group_t) C.ns_result_t { return C.ns_group_set_limit(raw, C.size_t(most)) })
}

// Len is how many of its jobs wait to begin.
func (g *Group) Len() (length int) {
	_ = g.do("Len", func(raw *C.struct_ns_group_t) C.ns_result_t {
		length = int(C.ns_group_get_length(raw))
		return C.NS_SUCCESS
	})
	return
}
