//go:build unix

package multicast

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// sharePort lets several programs of this machine hear the same group.
func sharePort(_, _ string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) {
		err = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	})
	return errors.Join(err, cerr)
}
