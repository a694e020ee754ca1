package multicast

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// events are what rtnetlink says of interfaces and addresses (rtnetlink(7)). All but losses
// of addresses is read as "something changed".
type events struct{ file *os.File }

func openEvents() (*events, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &events{os.NewFile(uintptr(fd), "rtnetlink")}, nil
}

// next waits for an event, and a moment for more of its burst, or until the time is over.
// lost are the interfaces that an IPv4 address was taken from. An error is final.
func (e *events) next(within time.Duration) (lost map[int]bool, err error) {
	lost = map[int]bool{}
	buf := make([]byte, 4096) // a longer message is cut; those that are read have some dozen bytes
	err = e.file.SetReadDeadline(time.Now().Add(within))
	for waiting := true; err == nil; waiting = false {
		var n int
		n, err = e.file.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return lost, nil
		case errors.Is(err, unix.ENOBUFS): // it lost some
			lost[every] = true
			return lost, nil
		case err == nil:
			losses(buf[:n], lost)
			if waiting {
				err = e.file.SetReadDeadline(time.Now().Add(settle))
			}
		}
	}
	return nil, err
}

func (e *events) close() { _ = e.file.Close() }

// Messages begin with a header of 16 bytes, which begins with length and type (netlink(7)); those
// of addresses go on with family, prefix length, flags, scope and the interface's index.
const (
	headerLen = unix.NLMSG_HDRLEN
	addrLen   = unix.SizeofIfAddrmsg
)

// losses adds the interfaces that an IPv4 address was taken from.
func losses(b []byte, lost map[int]bool) {
	for len(b) >= headerLen {
		n := int(binary.NativeEndian.Uint32(b))
		if n < headerLen || n > len(b) {
			return
		}
		if binary.NativeEndian.Uint16(b[4:]) == unix.RTM_DELADDR && n >= headerLen+addrLen && b[headerLen] == unix.AF_INET {
			lost[int(binary.NativeEndian.Uint32(b[headerLen+4:]))] = true
		}
		b = b[min(len(b), (n+3)&^3):]
	}
}

// listInterfaces asks the system twice: for the interfaces, and for all addresses.
func listInterfaces() ([]Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	rib, err := syscall.NetlinkRIB(unix.RTM_GETADDR, unix.AF_UNSPEC)
	if err != nil {
		return nil, os.NewSyscallError("netlink", err)
	}
	messages, err := syscall.ParseNetlinkMessage(rib)
	if err != nil {
		return nil, os.NewSyscallError("netlink", err)
	}
	addrs := map[int][]netip.Prefix{}
	for _, m := range messages {
		if i, p, ok := usableAddr(m); ok {
			addrs[i] = append(addrs[i], p)
		}
	}
	out := make([]Interface, 0, len(all))
	for _, i := range all {
		out = append(out, Interface{Index: i.Index, Name: i.Name, Flags: i.Flags, Addrs: addrs[i.Index]})
	}
	return out, nil
}

// usableAddr reads one address of an interface.
func usableAddr(m syscall.NetlinkMessage) (iface int, p netip.Prefix, ok bool) {
	if m.Header.Type != unix.RTM_NEWADDR || len(m.Data) < addrLen {
		return 0, p, false
	}
	attrs, err := syscall.ParseNetlinkRouteAttr(&m)
	if err != nil {
		return 0, p, false
	}
	flags := uint32(m.Data[2])
	var addr, local netip.Addr
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.IFA_ADDRESS: // the other end, where there is one
			addr, _ = netip.AddrFromSlice(a.Value)
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(a.Value)
		case unix.IFA_FLAGS:
			if len(a.Value) >= 4 {
				flags = binary.NativeEndian.Uint32(a.Value)
			}
		}
	}
	if local.IsValid() {
		addr = local
	}
	if flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 && flags&unix.IFA_F_OPTIMISTIC == 0 {
		return 0, p, false
	}
	p = netip.PrefixFrom(addr, int(m.Data[1]))
	return int(binary.NativeEndian.Uint32(m.Data[4:])), p, p.IsValid()
}
