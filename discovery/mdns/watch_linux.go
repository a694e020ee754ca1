package mdns

import (
	"bufio"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// watcher tells of changed interfaces and addresses, from rtnetlink. What the messages
// say is not read: the engine looks for itself.
type watcher struct {
	events chan struct{} // nil if the system does not tell
	file   *os.File
}

func (w *watcher) start(wg *sync.WaitGroup, log *slog.Logger) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		log.Info("interface changes are polled for", "err", err)
		return
	}
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd)
		log.Info("interface changes are polled for", "err", err)
		return
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
}

func (w *watcher) stop() {
	if w.file != nil {
		_ = w.file.Close()
	}
}

// tentative lists the IPv6 addresses that the kernel still checks for duplicates, or has
// found to be one (RFC 4862 section 5.4).
func tentative() map[netip.Addr]bool {
	f, err := os.Open("/proc/net/if_inet6")
	if err != nil {
		return nil // no IPv6 here
	}
	defer f.Close() //nolint:errcheck // read only
	return parseTentative(bufio.NewScanner(f))
}

// parseTentative reads lines of address, index, prefix length, scope, flags and name.
func parseTentative(lines *bufio.Scanner) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 6 || len(f[0]) != 32 {
			continue
		}
		flags, err := strconv.ParseUint(f[4], 16, 32)
		if err != nil || flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 || flags&unix.IFA_F_OPTIMISTIC != 0 {
			continue
		}
		var b [16]byte
		for i := range b {
			n, err := strconv.ParseUint(f[0][2*i:2*i+2], 16, 8)
			if err != nil {
				break
			}
			b[i] = byte(n)
		}
		out[netip.AddrFrom16(b)] = true
	}
	return out
}
