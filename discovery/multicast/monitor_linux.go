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

// rtnetlink tells of every change (rtnetlink(7)). What it says is not read: Monitor looks for
// itself.
type rtnetlink struct{ file *os.File }

func openEvents() (events, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return rtnetlink{os.NewFile(uintptr(fd), "rtnetlink")}, nil
}

func (r rtnetlink) next(within time.Duration) error {
	err := r.file.SetReadDeadline(time.Now().Add(within))
	buf := make([]byte, 512) // a longer message is cut
	for waiting := true; err == nil; waiting = false {
		_, err = r.file.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.ENOBUFS): // there was more than the system could keep
			return nil
		case err == nil && waiting:
			err = r.file.SetReadDeadline(time.Now().Add(settle))
		}
	}
	return err
}

func (r rtnetlink) close() { _ = r.file.Close() }

// addrLen is the length of the header of a message about an address: family, prefix length,
// flags, scope and the interface's index.
const addrLen = unix.SizeofIfAddrmsg

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
