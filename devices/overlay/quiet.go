package overlay

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// quietConn reads and writes without telling Go's scheduler of it. The scheduler wakes a
// thread that watches each system call of a process that was asleep, in case the call blocks,
// and to wake that thread was a quarter of what 64 idle nodes cost. These calls cannot
// block: the socket is non-blocking, and where it has nothing to give or to take the
// runtime's poller waits, with the deadlines of the connection. Like any net.Conn it may be
// read and written by one goroutine each at a time, and closed by any.
type quietConn struct {
	*net.TCPConn

	raw     syscall.RawConn
	in, out transfer
}

// transfer is one direction; it is kept so that a call allocates nothing.
type transfer struct {
	b    []byte
	n    int
	err  error
	step func(fd uintptr) (done bool)
}

func newQuietConn(c *net.TCPConn) (*quietConn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	q := &quietConn{TCPConn: c, raw: raw}
	q.in.step, q.out.step = q.in.read, q.out.write
	return q, nil
}

// Read is that of net.Conn.
func (q *quietConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := q.in.run(b, q.raw.Read)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, q.wrap("read", err)
}

// Write is that of net.Conn.
func (q *quietConn) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := q.out.run(b, q.raw.Write)
	return n, q.wrap("write", err)
}

// wrap says of the system's errors what package net would; the poller's come wrapped.
func (q *quietConn) wrap(op string, err error) error {
	if errno, ok := err.(syscall.Errno); ok { //nolint:errorlint // made below, never wrapped
		return &net.OpError{Op: op, Net: "tcp", Source: q.LocalAddr(), Addr: q.RemoteAddr(), Err: os.NewSyscallError(op, errno)}
	}
	return err
}

// run does steps until one is done; wait is how the poller is asked to wait between them.
func (t *transfer) run(b []byte, wait func(func(uintptr) bool) error) (int, error) {
	t.b, t.n, t.err = b, 0, nil
	err := wait(t.step)
	t.b = nil
	if t.err != nil {
		err = t.err
	}
	return t.n, err
}

func (t *transfer) read(fd uintptr) bool {
	n, again, err := call(syscall.SYS_READ, fd, t.b)
	t.n, t.err = n, err
	return !again
}

func (t *transfer) write(fd uintptr) bool {
	for t.n < len(t.b) {
		n, again, err := call(syscall.SYS_WRITE, fd, t.b[t.n:])
		t.n += n
		if again {
			return false
		}
		if err != nil {
			t.err = err
			return true
		}
	}
	return true
}

// call is one read or write of a non-blocking descriptor; again says that it has to wait.
func call(trap, fd uintptr, b []byte) (n int, again bool, err error) {
	for {
		r, _, errno := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b))) //nolint:gosec // as package syscall does; b is not empty
		switch errno {
		case 0:
			return int(r), false, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, true, nil
		default:
			return 0, false, errno
		}
	}
}
