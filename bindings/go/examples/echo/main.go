// SPDX-License-Identifier: GPL-3.0-or-later

// Command echo sends back what TCP clients send, on 127.0.0.1, until SIGTERM or Ctrl-C: echo [port]. Port 0 is any; it
// prints which.
package main

import (
	"fmt"
	"log"
	"os"
	"strconv"
	"syscall"
	"time"

	ns "nuncstans"
)

// In a worker, which may block: another client's run meanwhile in the others.
func serve(job *ns.Job, client int, buffer []byte) {
	n := 0
	if !job.TimedOut() {
		n, _ = syscall.Read(client, buffer)
	}
	for sent := 0; sent < n; {
		m, err := syscall.Write(client, buffer[sent:n])
		if err != nil {
			n = 0
		}
		sent += m
	}
	if n <= 0 || job.Rearm() != nil {
		job.Cancel()
		syscall.Close(client)
	}
}

func main() {
	port := 7007
	if len(os.Args) > 1 {
		port, _ = strconv.Atoi(os.Args[1])
	}
	pool, err := ns.New(ns.Options{Workers: 4})
	if err != nil {
		log.Fatal(err)
	}
	listener, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		_ = syscall.SetsockoptInt(listener, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
		err = syscall.Bind(listener, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	}
	if err == nil {
		err = syscall.Listen(listener, 128)
	}
	if err != nil {
		log.Fatal(err)
	}
	accept := func(job *ns.Job) {
		client, _, err := syscall.Accept4(listener, syscall.SOCK_CLOEXEC)
		switch err {
		case nil:
			buffer := make([]byte, 65536)
			_, err = pool.OnReady(client, ns.Read, 30*time.Second, func(job *ns.Job) { serve(job, client, buffer) })
			if err != nil {
				syscall.Close(client)
			}
			_ = job.Rearm()
		case syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS:
			_ = job.RearmAfter(100 * time.Millisecond) // the client still waits
		default:
			_ = job.Rearm()
		}
	}
	if _, err = pool.OnReady(listener, ns.Read, 0, accept, ns.InLoop); err != nil {
		log.Fatal(err)
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		if _, err = pool.OnSignal(signal, func(*ns.Job) { _ = pool.Shutdown() }); err != nil {
			log.Fatal(err)
		}
	}
	if bound, err := syscall.Getsockname(listener); err == nil {
		fmt.Println(bound.(*syscall.SockaddrInet4).Port)
	}
	if err = pool.Wait(); err == nil {
		err = pool.Close()
	}
	if err != nil {
		log.Fatal(err)
	}
}
