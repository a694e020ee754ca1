package rtc

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// quietConn is a UDP socket that is read and written without telling Go's scheduler of it, as
// the member port is (devices/overlay/quiet.go): a call without media sends a few packets a
// second, and what each costs is mostly the thread that the scheduler wakes. It can be read
// by one goroutine at a time, and written and closed by any.
type quietConn struct {
	*net.UDPConn

	raw  syscall.RawConn
	six  bool   // AF_INET6
	zone string // of the address it is bound to; its peers compare equal to candidates without one
	in   inward
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
	q := &quietConn{UDPConn: c, raw: raw, six: at.Is6(), zone: at.Zone()}
	q.in.step = q.in.read
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
	var six unix.RawSockaddrInet6
	size := uintptr(unix.SizeofSockaddrInet6)
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&six.Port))[:], to.Port()) //nolint:gosec // as package net does
	if c.six {
		six.Family, six.Addr = unix.AF_INET6, to.Addr().As16()
	} else {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(&six)) //nolint:gosec // a sockaddr of this family
		four.Family, four.Addr, size = unix.AF_INET, to.Addr().Unmap().As4(), unix.SizeofSockaddrInet4
	}
	var n int
	var err error
	wait := c.raw.Write(func(fd uintptr) bool {
		for {
			r, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0, uintptr(unsafe.Pointer(&six)), size) //nolint:gosec // as package syscall does
			switch errno {
			case 0:
				n, err = int(r), nil
			case syscall.EINTR:
				continue
			case syscall.EAGAIN:
				return false
			default:
				n, err = 0, errno
			}
			return true
		}
	})
	if wait != nil {
		return 0, wait
	}
	if err != nil {
		err = &net.OpError{Op: "write", Net: "udp", Source: c.LocalAddr(), Err: os.NewSyscallError("sendto", err)}
	}
	return n, err
}
