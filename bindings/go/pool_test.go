// SPDX-License-Identifier: GPL-3.0-or-later

package nuncstans

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func must[T any](t *testing.T) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func newPool(t *testing.T, options Options) *Pool {
	t.Helper()
	pool := must[*Pool](t)(New(options))
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
		handles.Range(func(handle, what any) bool {
			t.Errorf("left over: %v %T", handle, what)
			return false
		})
	})
	return pool
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never came: ", what)
		}
	}
}

func refused(t *testing.T, want error, err error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%v, not %v", err, want)
	}
}

// Two ends of a TCP connection, as descriptors.
func pair(t *testing.T) (int, int) {
	t.Helper()
	listener := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer listener.Close()
	a := must[net.Conn](t)(net.Dial("tcp", listener.Addr().String()))
	b := must[net.Conn](t)(listener.Accept())
	var fds [2]int
	for i, conn := range []net.Conn{a, b} {
		file := must[*os.File](t)(conn.(*net.TCPConn).File())
		fds[i] = must[int](t)(syscall.Dup(int(file.Fd()))) // Fd makes it blocking
		file.Close()
		conn.Close()
		fd := fds[i]
		t.Cleanup(func() { syscall.Close(fd) })
	}
	return fds[0], fds[1]
}

func TestVersionAndResults(t *testing.T) {
	if Version() != "0.2.0" || ErrOverloaded.Name() != "NS_OVERLOADED" || !strings.HasPrefix(ErrShutdown.Error(), "NS_SHUTDOWN: ") {
		t.Error(Version(), ErrOverloaded.Name(), ErrShutdown)
	}
}

func TestGoroutinesPost(t *testing.T) {
	pool := newPool(t, Options{Workers: 3, Name: "go"})
	var ran, wrong atomic.Int64
	var posted sync.WaitGroup
	last := make([]int, 16)
	for n := range last {
		n := n
		posted.Add(1)
		go func() {
			defer posted.Done()
			for i := 1; i <= 1000; i++ {
				i := i
				how := How(0)
				if n%2 == 0 { // in the loop, in order
					how = InLoop
				}
				err := pool.Post(func() {
					if n%2 == 0 {
						if last[n] != i-1 {
							wrong.Add(1)
						}
						last[n] = i
					}
					ran.Add(1)
				}, how)
				if err != nil {
					t.Error(err)
				}
			}
		}()
	}
	posted.Wait()
	refused(t, nil, pool.Shutdown())
	refused(t, nil, pool.Wait())
	if ran.Load() != 16000 || wrong.Load() != 0 {
		t.Error(ran.Load(), wrong.Load())
	}
}

func TestAJobIsOverUnlessRearmedOrKept(t *testing.T) {
	pool := newPool(t, Options{})
	var runs atomic.Int64
	job := must[*Job](t)(pool.Run(func(job *Job) {
		if runs.Add(1) < 3 {
			refused(t, nil, job.Rearm())
		}
	}))
	eventually(t, "the third run", job.Over)
	if runs.Load() != 3 {
		t.Error(runs.Load())
	}
	kept := must[*Job](t)(pool.Run(func(*Job) { runs.Add(1) }, Keep))
	eventually(t, "the kept one", func() bool { return runs.Load() == 4 })
	eventually(t, "its rearming", func() bool { return kept.Rearm() == nil })
	eventually(t, "its second run", func() bool { return runs.Load() == 5 })
	if !kept.Cancel() || kept.Cancel() || !kept.Over() {
		t.Error("not cancelled")
	}
	refused(t, ErrDeleting, kept.Rearm())
	own := make(chan bool, 2)
	must[*Job](t)(pool.Run(func(job *Job) {
		own <- job.Cancel()
		own <- job.Over()
	}))
	if !<-own || !<-own {
		t.Error("not cancelled by itself")
	}
	inside, leave := make(chan bool), make(chan bool)
	running := must[*Job](t)(pool.Run(func(*Job) { inside <- true; <-leave }))
	<-inside
	if running.Cancel() {
		t.Error("its run goes on")
	}
	leave <- true
}

func TestTimers(t *testing.T) {
	pool := newPool(t, Options{})
	begin, late := time.Now(), make(chan time.Duration)
	must[*Job](t)(pool.After(20*time.Millisecond, func(*Job) { late <- time.Since(begin) }))
	if after := <-late; after < 20*time.Millisecond {
		t.Error(after)
	}
	var ticks atomic.Int64
	clock := must[*Job](t)(pool.Every(time.Millisecond, func(*Job) { ticks.Add(1) }, Cadence, InLoop))
	eventually(t, "ticks", func() bool { return ticks.Load() >= 5 })
	clock.Cancel()
	never := must[*Job](t)(pool.After(1<<63-1, func(*Job) { os.Exit(3) }))
	refused(t, ErrInvalidState, never.Rearm())
	again := make(chan int, 3)
	must[*Job](t)(pool.After(-1, func(job *Job) {
		if !job.TimedOut() || job.Fired() != 0 {
			t.Error("what fired")
		}
		again <- 1
		switch len(again) {
		case 1:
			refused(t, nil, job.RearmAfter(time.Millisecond))
		case 2:
			refused(t, nil, job.RearmFor(0, time.Millisecond))
		}
	}))
	eventually(t, "three runs", func() bool { return len(again) == 3 })
}

func TestASocketIsReadThenWrittenThenTimesOut(t *testing.T) {
	pool := newPool(t, Options{})
	a, b := pair(t)
	events := make(chan string, 4)
	job := must[*Job](t)(pool.OnReady(a, Read, 0, func(job *Job) {
		switch {
		case job.TimedOut():
			events <- "time is up"
		case job.Fired() == Read:
			buffer := make([]byte, 100)
			n, _ := syscall.Read(a, buffer)
			events <- string(buffer[:n])
			refused(t, nil, job.RearmFor(Write, 10*time.Second))
		case job.Fired() == Write:
			_, _ = syscall.Write(a, []byte("pong"))
			refused(t, nil, job.RearmFor(Read, 10*time.Millisecond))
		}
	}))
	_, _ = syscall.Write(b, []byte("ping"))
	if first, second := <-events, <-events; first != "ping" || second != "time is up" {
		t.Error(first, second)
	}
	eventually(t, "its end", job.Over)
	if ready, err := pool.Await(b, Read, 10*time.Second); !ready || err != nil {
		t.Error(ready, err)
	}
	if ready, err := pool.Await(a, Read, time.Millisecond); ready || err != nil {
		t.Error(ready, err)
	}
	if ready, err := pool.Await(a, Read|Write, 0); !ready || err != nil {
		t.Error(ready, err)
	}
	if _, err := syscall.Write(a, []byte("still open")); err != nil {
		t.Error(err)
	}
}

func TestPanicsAreContainedAndReported(t *testing.T) {
	seen := make(chan *PanicError, 10)
	pool := newPool(t, Options{OnPanic: func(thrown *PanicError) { seen <- thrown; panic("again") }})
	for _, how := range []How{0, InLoop} {
		refused(t, nil, pool.Post(func() { panic("of a callback") }, how))
		if thrown := <-seen; thrown.Value != "of a callback" || !strings.Contains(thrown.Error(), "pool_test.go") {
			t.Error(thrown)
		}
	}
	clock := must[*Job](t)(pool.Every(time.Millisecond, func(*Job) { _ = []int{}[len(seen)] }))
	if _, ok := (<-seen).Value.(runtime.Error); !ok {
		t.Error("not a runtime error")
	}
	eventually(t, "its end", clock.Over)
	kept := must[*Job](t)(pool.Run(func(*Job) { panic(nil) }, Keep))
	<-seen
	eventually(t, "its end", kept.Over)
}

func TestRefusals(t *testing.T) {
	var lines atomic.Value
	lines.Store("")
	SetLog(func(priority int, line string) { lines.Store(fmt.Sprint(priority, " ", line)) })
	defer SetLog(nil)
	pool := newPool(t, Options{})
	nothing := func(*Job) {}
	_, err := pool.OnReady(-1, Read, 0, nothing)
	refused(t, ErrInvalidRequest, err)
	if line := lines.Load().(string); line != "3 ns_add_fd_timeout_job: fd is not an open descriptor" {
		t.Error(line)
	}
	if !strings.HasPrefix(err.Error(), "nuncstans: OnReady: NS_INVALID_REQUEST: ") {
		t.Error(err)
	}
	_, err = pool.OnSignal(syscall.SIGKILL, nothing)
	refused(t, ErrInvalidRequest, err)
	_, err = pool.OnReady(1<<32, Read, 0, nothing)
	refused(t, ErrInvalidRequest, err)
	_, err = pool.Run(nil)
	refused(t, ErrInvalidRequest, err)
	refused(t, ErrInvalidRequest, pool.Post(nil))
	for _, options := range []Options{{Workers: -1}, {Framework: "none of these"}, {StackSize: -1}, {StackSize: 1}} {
		_, err = New(options)
		refused(t, ErrInvalidRequest, err)
	}
	_, err = pool.NewGroup(-1)
	refused(t, ErrInvalidRequest, err)
	closes := make(chan error, 1)
	refused(t, nil, pool.Post(func() { closes <- pool.Close() }))
	refused(t, ErrThread, <-closes)
	if !pool.IsShutdown() {
		t.Error("not shut down")
	}
	refused(t, ErrShutdown, pool.Post(func() {}))
	_, err = pool.Run(nothing)
	refused(t, ErrShutdown, err)
	_, err = pool.NewGroup(1)
	refused(t, ErrShutdown, err)
	refused(t, nil, pool.Wait())
}

func TestAClosedPoolRefusesAndItsHandlesToo(t *testing.T) {
	pool := newPool(t, Options{Workers: 2})
	group := must[*Group](t)(pool.NewGroup(1))
	held := must[*Group](t)(pool.NewGroup(1))
	a, _ := pair(t)
	never := func(*Job) { os.Exit(3) }
	nothing := func(*Job) {}
	jobs := []*Job{
		must[*Job](t)(pool.After(time.Hour, never)), must[*Job](t)(pool.Run(nothing, Keep)),
		must[*Job](t)(pool.Every(time.Microsecond, nothing)), must[*Job](t)(pool.OnReady(a, Read, 0, never)),
		must[*Job](t)(group.After(time.Hour, never)), must[*Job](t)(group.Run(nothing, Keep)),
	}
	refused(t, nil, held.Suspend())
	refused(t, nil, held.Post(func() { os.Exit(3) }))
	waits := make(chan error, 1)
	go func() {
		_, err := pool.Await(a, Read, 0)
		waits <- err
	}()
	refused(t, nil, pool.Close())
	refused(t, nil, pool.Close())
	refused(t, ErrShutdown, <-waits)
	for _, job := range jobs {
		if !job.Over() || job.Cancel() {
			t.Error("a job is not over")
		}
		refused(t, ErrDeleting, job.Rearm())
	}
	for _, err := range []error{pool.Post(func() {}), pool.Wait(), pool.Shutdown(), group.Post(func() {}), group.Wait(0), group.Suspend()} {
		refused(t, ErrShutdown, err)
	}
	group.Release()
	if group.Len() != 0 || !pool.IsShutdown() {
		t.Error("not ended")
	}
}

func TestAGroupRunsOneAtATimeInOrder(t *testing.T) {
	pool := newPool(t, Options{Workers: 4})
	group := must[*Group](t)(pool.NewGroup(1))
	order := []int{} // no lock: the group is one, also to the race detector
	for i := 0; i < 1000; i++ {
		i := i
		how := How(0)
		if i%7 == 0 {
			how = InLoop
		}
		refused(t, nil, group.Post(func() { order = append(order, i) }, how))
	}
	refused(t, nil, group.Wait(30*time.Second))
	for i := range order {
		if order[i] != i {
			t.Fatal(order)
		}
	}
	if len(order) != 1000 {
		t.Error(len(order))
	}
	within := make(chan error, 1)
	refused(t, nil, group.Post(func() {
		_ = group.Post(func() {})
		within <- group.Wait(0)
	}))
	refused(t, ErrInvalidState, <-within)
	group.Release()
}

func TestAGroupIsCancelledSuspendedLimited(t *testing.T) {
	pool := newPool(t, Options{})
	group := must[*Group](t)(pool.NewGroup(1))
	refused(t, nil, group.Suspend())
	refused(t, nil, group.Limit(3))
	for i := 0; i < 3; i++ {
		refused(t, nil, group.Post(func() { os.Exit(3) }))
	}
	refused(t, ErrOverloaded, group.Post(func() {}))
	refused(t, ErrTimeout, group.Wait(time.Millisecond))
	if group.Len() != 3 {
		t.Error(group.Len())
	}
	job := must[*Job](t)(group.After(time.Hour, func(*Job) {}))
	if none, err := group.Cancel(); !none || err != nil || !job.Over() || job.Cancel() {
		t.Error(none, err)
	}
	refused(t, ErrDeleting, group.Post(func() {}))
	_, err := group.Run(func(*Job) {})
	refused(t, ErrDeleting, err)
	refused(t, nil, group.Resume())
	refused(t, ErrInvalidState, group.Resume())
	refused(t, nil, group.Wait(30*time.Second))
	group.Release()
	eventually(t, "its end", func() bool { return errors.Is(group.Suspend(), ErrShutdown) })
	leave := make(chan bool)
	busy := newPool(t, Options{QueueLimit: 5})
	refused(t, nil, busy.Post(func() { <-leave }))
	eventually(t, "too many", func() bool { return errors.Is(busy.Post(func() {}), ErrOverloaded) })
	close(leave)
}

func TestSignals(t *testing.T) {
	pool := newPool(t, Options{})
	seen := make(chan bool)
	job := must[*Job](t)(pool.OnSignal(syscall.SIGUSR1, func(*Job) { seen <- true }, Persist))
	for i := 0; i < 100; i++ {
		refused(t, nil, syscall.Kill(os.Getpid(), syscall.SIGUSR1))
		<-seen
		runtime.GC()
	}
	job.Cancel()
}

// Callbacks grow their stacks, collect garbage, and block, while goroutines cancel and close.
func TestHandlesRaceWithCallbacksAndCancels(t *testing.T) {
	for round := 0; round < 20; round++ {
		pool := must[*Pool](t)(New(Options{Workers: 3}))
		group := must[*Group](t)(pool.NewGroup(2))
		var jobs []*Job
		for i := 0; i < 40; i++ {
			for _, add := range []func(time.Duration, func(*Job), ...How) (*Job, error){pool.After, group.After} {
				jobs = append(jobs, must[*Job](t)(add(time.Duration(i)*10*time.Microsecond, func(job *Job) { _ = job.Rearm() })))
			}
		}
		var all sync.WaitGroup
		for which := 0; which < 3; which++ {
			which := which
			all.Add(1)
			go func() {
				defer all.Done()
				for n, job := range jobs {
					switch {
					case which < 2:
						job.Cancel()
					default:
						_ = job.Rearm()
						_ = pool.Post(runtime.GC)
					}
					if which == 1 && n == 20 {
						_, _ = group.Cancel()
					}
				}
			}()
		}
		if round%2 == 1 {
			refused(t, nil, pool.Close())
		}
		all.Wait()
		for _, job := range jobs {
			if !job.Over() {
				t.Error("a job is not over")
			}
		}
		refused(t, nil, pool.Close())
	}
}

// TestMain runs this program as one of its own tests' children: it ends while everything fires.
func TestMain(m *testing.M) {
	how := os.Getenv("NS_TEST_EXIT")
	if how == "" {
		os.Exit(m.Run())
	}
	for i := 0; i < 3; i++ {
		pool, err := New(Options{Workers: 3})
		if err != nil {
			panic(err)
		}
		for j := 0; j < 10; j++ {
			_, _ = pool.Every(10*time.Microsecond, func(*Job) { _ = pool.Post(func() {}) })
			_, _ = pool.Every(10*time.Microsecond, func(*Job) {}, InLoop)
		}
		if i == 2 && how == "callback" {
			_, _ = pool.After(5*time.Millisecond, func(*Job) { os.Exit(0) })
			select {}
		}
	}
	time.Sleep(5 * time.Millisecond)
}

func TestExitsUnderFire(t *testing.T) {
	if testing.Short() {
		t.Skip("the programs are the same")
	}
	count := 100
	if os.Getenv("NS_COUNT") == "full" {
		count = 10000
	}
	for i := 0; i < count; i++ {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "NS_TEST_EXIT="+[]string{"main", "callback"}[i%2])
		if output, err := child.CombinedOutput(); err != nil || len(output) > 0 {
			t.Fatal(i, err, string(output))
		}
	}
}

func TestTheEchoServerEndsOnSIGTERM(t *testing.T) {
	program := filepath.Join(t.TempDir(), "echo")
	if output, err := exec.Command("go", "build", "-o", program, "./examples/echo").CombinedOutput(); err != nil {
		t.Fatal(err, string(output))
	}
	server := exec.Command(program, "0")
	out, err := server.StdoutPipe()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	port := strings.TrimSpace(must[string](t)(bufio.NewReader(out).ReadString('\n')))
	text := strings.Repeat("0123456789abcdef", 1000)
	var clients sync.WaitGroup
	for i := 0; i < 100; i++ {
		i := i
		clients.Add(1)
		go func() {
			defer clients.Done()
			client, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err != nil {
				t.Error(err)
				return
			}
			defer client.Close()
			lines := bufio.NewReader(client)
			for round := 0; round < 3; round++ {
				line := fmt.Sprint(i, text, "\n")
				_, _ = client.Write([]byte(line))
				if back, err := lines.ReadString('\n'); back != line {
					t.Error(err)
				}
			}
		}()
	}
	clients.Wait()
	refused(t, nil, server.Process.Signal(syscall.SIGTERM))
	if err := server.Wait(); err != nil {
		t.Error(err)
	}
}
