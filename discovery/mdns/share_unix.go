//go:build unix

package mdns

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// sharePort lets several programs use port 5353 (RFC 6762 section 15.1). avahi and
// mDNSResponder set the same options.
func sharePort(_, _ string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) {
		err = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	})
	return errors.Join(err, cerr)
}
