// SPDX-License-Identifier: GPL-3.0-or-later

package nuncstans

// #include "bridge.h"
import "C"

import (
	"fmt"
	"log"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Result is why a call was refused. Compare with errors.Is(err, nuncstans.ErrShutdown).
type Result int

const (
	ErrShutdown       Result = C.NS_SHUTDOWN
	ErrAllocation     Result = C.NS_ALLOCATION_FAILURE
	ErrInvalidRequest Result = C.NS_INVALID_REQUEST
	ErrInvalidState   Result = C.NS_INVALID_STATE
	ErrThread         Result = C.NS_THREAD_FAILURE
	ErrDeleting       Result = C.NS_DELETING
	ErrTimeout        Result = C.NS_TIMEOUT
	ErrOverloaded     Result = C.NS_OVERLOADED
)

// Name is the name in C, as "NS_SHUTDOWN".
func (r Result) Name() string { return C.GoString(C.ns_result_name(C.ns_result_t(r))) }

func (r Result) Error() string {
	return r.Name() + ": " + C.GoString(C.ns_result_message(C.ns_result_t(r)))
}

func check(call string, result C.ns_result_t) error {
	if result == C.NS_SUCCESS {
		return nil
	}
	return fmt.Errorf("nuncstans: %s: %w", call, Result(result))
}

// Version is that of the library that is loaded.
func Version() string { return C.GoString(C.ns_version()) }

var logger atomic.Pointer[func(priority int, line string)]

// SetLog chooses who gets what the library logs, with syslog's priorities; nil: package log gets warnings and errors.
// It must not call this package.
func SetLog(to func(priority int, line string)) {
	if to == nil {
		to = func(priority int, line string) {
			if priority <= 4 {
				log.Print("nunc-stans: ", line)
			}
		}
	}
	logger.Store(&to)
}

func init() { SetLog(nil) }

//export goLog
func goLog(priority C.int, line *C.char) {
	defer func() { _ = recover() }()
	(*logger.Load())(int(priority), strings.TrimSuffix(C.GoString(line), "\n"))
}

// A time for C: rounded up, not negative.
func timeval(d time.Duration) (tv C.struct_timeval) {
	if d > 0 {
		us := (d-1)/time.Microsecond + 1
		tv.tv_sec, tv.tv_usec = C.time_t(us/1e6), C.suseconds_t(us%1e6)
	}
	return
}

// A time-out for C: zero is none, there and here; what is over already is a microsecond.
func timeout(d time.Duration) C.struct_timeval {
	if d < 0 {
		d = 1
	}
	return timeval(d)
}

// How a job runs. Combine with |.
type How int

const (
	InLoop  How = 1 << iota // the callback runs in the event loop, and must not block; otherwise in a worker
	Persist                 // it is armed again whenever its callback returns
	Keep                    // it is not over when its callback returns: its owner arms it again, or cancels it
	Cadence                 // Every without drift
)

// Read and Write are what a descriptor can be ready for.
const (
	Read  = int(C.NS_JOB_READ)
	Write = int(C.NS_JOB_WRITE)
)

// Job is a job of a pool. It is over when its callback returns without having armed it again, unless it is made with
// Persist or Keep. Any goroutine may call its methods.
type Job struct {
	pool     *Pool
	group    *Group
	callback func(*Job)
	how      How
	// Held while C is told of the job, and never while the application's code runs. The jobs of a group share its lock.
	mu      *sync.Mutex
	raw     *C.struct_ns_job_t // until it is finished with; who finishes with it takes it
	armings int
	runs    int
	fired   C.ns_job_type_t
	gone    func()
}

func (j *Job) over() bool { return j.raw == nil || j.group != nil && j.group.cancelled }

// Over says whether it is finished with.
func (j *Job) Over() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.over()
}

func (j *Job) arm(call string, arm func(*C.struct_ns_job_t) C.ns_result_t) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.over() {
		return check(call, C.NS_DELETING)
	}
	err := check(call, arm(j.raw))
	if err == nil {
		j.armings++
	}
	return err
}

// Rearm arms it again: in its callback, when that returns.
func (j *Job) Rearm() error {
	return j.arm("Rearm", func(raw *C.struct_ns_job_t) C.ns_result_t { return C.ns_job_rearm(raw) })
}

// RearmAfter does so too, but it begins to watch only after a time.
func (j *Job) RearmAfter(d time.Duration) error {
	tv := timeval(d)
	return j.arm("RearmAfter", func(raw *C.struct_ns_job_t) C.ns_result_t { return C.ns_job_rearm_after(raw, &tv) })
}

// RearmFor does so too, for Read, Write or both, with another time-out (0: none); for a timer, 0 and its new time.
func (j *Job) RearmFor(directions int, d time.Duration) error {
	tv := timeout(d)
	return j.arm("RearmFor", func(raw *C.struct_ns_job_t) C.ns_result_t {
		return C.ns_job_rearm_for(raw, C.ns_job_type_t(directions), &tv)
	})
}

// Cancel finishes with it, whatever its state. True: no run is in progress, but perhaps the caller's own, and none
// begins any more. False: one is in progress in another thread, and is the last; or it was over before.
func (j *Job) Cancel() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.over() {
		return false
	}
	raw := j.raw
	j.raw = nil
	return C.ns_job_cancel(raw) == C.NS_SUCCESS
}

// Fired says, in its callback, for what it runs: Read, Write, both, or 0 for anything else.
func (j *Job) Fired() int { return int(j.fired) & (Read | Write) }

// TimedOut says, in its callback, whether its time is up.
func (j *Job) TimedOut() bool { return j.fired&C.NS_JOB_TIMER != 0 }

// PanicError is what OnPanic gets.
type PanicError struct {
	Value any
	Stack []byte
}

func (p *PanicError) Error() string {
	return fmt.Sprintf("panic in a callback: %v\n%s", p.Value, p.Stack)
}

// Call what is not ours. No panic leaves it: C and Rust are below.
func (p *Pool) contain(f func()) (returned bool) {
	defer func() {
		if returned {
			return
		}
		value := recover()
		defer func() {
			if again := recover(); again != nil {
				fmt.Fprintln(os.Stderr, "nunc-stans: panic in OnPanic:", again)
			}
		}()
		p.onPanic(&PanicError{value, debug.Stack()})
	}()
	f()
	return true
}

//export goRun
func goRun(handle C.uintptr_t, fired C.ns_job_type_t) {
	what, _ := handles.Load(handle)
	j := what.(*Job)
	j.mu.Lock()
	j.fired = fired
	j.mu.Unlock()
	returned := j.pool.contain(func() { j.callback(j) })
	j.mu.Lock()
	defer j.mu.Unlock()
	j.runs++
	if j.over() {
		return
	}
	if !returned || j.how&(Persist|Keep) == 0 && j.runs == j.armings {
		raw := j.raw
		j.raw = nil
		C.ns_job_done(raw)
	}
}

//export goGone
func goGone(handle C.uintptr_t) {
	what, _ := handles.LoadAndDelete(handle)
	j := what.(*Job)
	j.mu.Lock()
	j.raw = nil
	j.mu.Unlock()
	if j.gone != nil {
		j.gone()
	}
}

type post struct {
	where *adder
	f     func()
}

//export goPosted
func goPosted(handle C.uintptr_t) {
	// Not there: it was taken back, because its group was cancelled.
	if entry, found := handles.LoadAndDelete(handle); found {
		p := entry.(*post)
		p.where.pool.contain(p.f)
	}
}
