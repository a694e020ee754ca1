//go:build !unix

package multicast

import "syscall"

// sharePort does nothing here: Hallway ships for Linux.
func sharePort(_, _ string, _ syscall.RawConn) error { return nil }
