package multicast

import (
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// watcher tells of changed interfaces and addresses, from rtnetlink. What the messages
// say is not read: the protocol looks for itself.
type watcher struct {
	events chan struct{} // nil if the system does not tell
	file   *os.File
}

func (w *watcher) start(wg *sync.WaitGroup) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	w.events = make(chan struct{}, 1)
	w.file = os.NewFile(uintptr(fd), "rtnetlink")
	wg.Go(func() {
		buf := make([]byte, 8192)
		for {
			// An overrun (ENOBUFS) is a change, too; only a closed file ends this.
			if _, err := w.file.Read(buf); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return
			}
			select {
			case w.events <- struct{}{}:
			default:
			}
		}
	})
	return nil
}

func (w *watcher) stop() {
	if w.file != nil {
		_ = w.file.Close()
	}
}

// tentative lists the IPv6 addresses that the kernel still checks for duplicates, or has
// found to be one (RFC 4862 section 5.4): sending from one fails. Lines of the file are
// address, index, prefix length, scope, flags and name.
func tentative() map[netip.Addr]bool {
	text, err := os.ReadFile("/proc/net/if_inet6")
	if err != nil {
		return nil // no IPv6 here
	}
	out := map[netip.Addr]bool{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 6 || len(f[0]) != 32 {
			continue
		}
		flags, err := strconv.ParseUint(f[4], 16, 32)
		if err != nil || flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 || flags&unix.IFA_F_OPTIMISTIC != 0 {
			continue
		}
		var words []string
		for i := 0; i < 32; i += 4 {
			words = append(words, f[0][i:i+4])
		}
		if a, err := netip.ParseAddr(strings.Join(words, ":")); err == nil {
			out[a] = true
		}
	}
	return out
}
