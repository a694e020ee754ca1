package rtc

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// quietConn is a UDP socket that is read and written without telling Go's scheduler of it, as
// the member port is (devices/overlay/quiet.go): a call without media sends a few packets a
// second, and what each costs is mostly the thread that the scheduler wakes. It can be read
// by one goroutine at a time, and written and closed by any. A socket on a link-local address is
// bound to its link: peers have no zone, so that they compare equal to their candidates.
type quietConn struct {
	*net.UDPConn

	raw syscall.RawConn
	six bool // AF_INET6
	in  inward

	writing sync.Mutex
	out     outward
}

// inward is one read; it is kept so that a read allocates nothing.
type inward struct {
	b    []byte
	n    int
	from unix.RawSockaddrInet6 // the longer of the two
	err  error
	step func(fd uintptr) (done bool)
}

func newQuietConn(c *net.UDPConn, at netip.Addr) (*quietConn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	q := &quietConn{UDPConn: c, raw: raw, six: at.Is6()}
	q.in.step, q.out.step = q.in.read, q.out.write
	return q, nil
}

func (r *inward) read(fd uintptr) bool {
	for {
		size := uint32(unix.SizeofSockaddrInet6)
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&r.b[0])), uintptr(len(r.b)), 0, uintptr(unsafe.Pointer(&r.from)), uintptr(unsafe.Pointer(&size))) //nolint:gosec // as package syscall does
		switch errno {
		case 0:
			r.n, r.err = int(n), nil
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		default:
			r.n, r.err = 0, errno
		}
		return true
	}
}

// ReadFromAddrPort implements ice.AddrPortReaderWriter.
func (c *quietConn) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	c.in.b = b
	err := c.raw.Read(c.in.step)
	c.in.b = nil
	if err == nil && c.in.err != nil {
		err = &net.OpError{Op: "read", Net: "udp", Source: c.LocalAddr(), Err: os.NewSyscallError("recvfrom", c.in.err)}
	}
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	from := c.in.from
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&from.Port))[:]) //nolint:gosec // as package net does
	if !c.six {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(&from)) //nolint:gosec // a sockaddr of this family
		return c.in.n, netip.AddrPortFrom(netip.AddrFrom4(four.Addr), port), nil
	}
	return c.in.n, netip.AddrPortFrom(netip.AddrFrom16(from.Addr), port), nil
}

// WriteToAddrPort implements ice.AddrPortReaderWriter.
func (c *quietConn) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	c.writing.Lock() // the poller lets one in at a time anyway
	defer c.writing.Unlock()
	o := &c.out
	o.b, o.size, o.to, o.err = b, unix.SizeofSockaddrInet6, unix.RawSockaddrInet6{}, nil
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&o.to.Port))[:], to.Port()) //nolint:gosec // as package net does
	if c.six {
		o.to.Family, o.to.Addr = unix.AF_INET6, to.Addr().As16()
	} else {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(&o.to)) //nolint:gosec // a sockaddr of this family
		four.Family, four.Addr, o.size = unix.AF_INET, to.Addr().Unmap().As4(), unix.SizeofSockaddrInet4
	}
	err := c.raw.Write(o.step)
	o.b = nil
	switch {
	case err != nil:
		return 0, err
	case o.err != nil:
		return 0, &net.OpError{Op: "write", Net: "udp", Source: c.LocalAddr(), Err: os.NewSyscallError("sendto", o.err)}
	}
	return o.n, nil
}

// outward is one write; it is kept so that a write allocates nothing.
type outward struct {
	b    []byte
	to   unix.RawSockaddrInet6 // the longer of the two
	size uintptr
	n    int
	err  error
	step func(fd uintptr) (done bool)
}

func (o *outward) write(fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(o.b))), uintptr(len(o.b)), 0, uintptr(unsafe.Pointer(&o.to)), o.size) //nolint:gosec // as package syscall does
		switch errno {
		case 0:
			o.n = int(n)
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		default:
			o.n, o.err = 0, errno
		}
		return true
	}
}
