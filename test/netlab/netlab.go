// Package netlab makes hosts of network namespaces: each has its own interfaces, ports
// and processes, on a private bridge in a namespace of its own, so nothing reaches the
// machine's real network. It needs root and `ip` (iproute2). Tests use it, and so does
// `hallway demo`; it imports nothing but the standard library.
//
// A Lab and its Hosts may be used from several goroutines once they are made; Close
// ends every process in them. Namespaces of dead runs are swept by the next one.
package netlab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// prefix of every namespace, followed by the process that made it.
	prefix = "hwlab"
	// MaxHosts on one bridge: the last number of an IPv4 address.
	MaxHosts = 250
	// stopGrace is how long a program may take to end after SIGTERM.
	stopGrace = 3 * time.Second
)

// ErrUnsupported says that this machine cannot make namespaces.
var ErrUnsupported = errors.New("network namespaces need root and the program ip (Debian: apt install iproute2)")

// Lab is one private network, or several with a router between them.
type Lab struct {
	name     string
	mu       sync.Mutex
	hosts    []*Host // routers too
	segments []*Segment
	cut      bool // the bridge of cut-off hosts exists
}

// Host is one namespace with an interface on a segment, eth0; Attach adds more.
type Host struct {
	Name     string // as given
	NS       string // namespace
	IPv4     string // of eth0; empty without
	IPv6     string // of eth0: a unique local address; a link-local one exists as well
	lab      *Lab
	number   int
	families Families
	cables   []cable
}

// ip runs the ip command.
func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput() //nolint:noctx // ends by itself
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// New makes an empty network.
func New() (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, ErrUnsupported
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return nil, ErrUnsupported
	}
	sweep()
	makeRoom()
	var tag [3]byte
	_, _ = rand.Read(tag[:]) // never fails (crypto/rand)
	l := &Lab{name: fmt.Sprintf("%s-%d-%s", prefix, os.Getpid(), hex.EncodeToString(tag[:]))}
	for _, cmd := range [][]string{{"netns", "add", l.name}, {"-n", l.name, "link", "set", "lo", "up"}} {
		if err := ip(cmd...); err != nil {
			_ = l.Close()
			return nil, errors.Join(ErrUnsupported, err)
		}
	}
	if _, err := l.Segment(); err != nil {
		_ = l.Close()
		return nil, errors.Join(ErrUnsupported, err)
	}
	return l, nil
}

// sweep removes namespaces whose process is gone.
func sweep() {
	entries, _ := os.ReadDir("/var/run/netns")
	for _, e := range entries {
		parts := strings.Split(e.Name(), "-")
		if len(parts) < 3 || parts[0] != prefix {
			continue
		}
		if pid, err := strconv.Atoi(parts[1]); err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			end(e.Name())
			_ = ip("netns", "del", e.Name())
		}
	}
}

// Host adds a host to the first segment with IPv4, IPv6 and a link-local address, ready
// at once.
func (l *Lab) Host(name string) (*Host, error) { return l.HostOn(l.segments[0], name, Both) }

// HostOn adds a host to a segment with some families of addresses.
func (l *Lab) HostOn(s *Segment, name string, f Families) (*Host, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, err := l.namespace(name, f)
	if err != nil {
		return nil, err
	}
	if err := h.attach(s, h.number); err != nil {
		return nil, err
	}
	h.IPv4, h.IPv6 = h.cables[0].ipv4, h.cables[0].ipv6
	return h, nil
}

// namespace makes a host without interfaces; mu is held.
func (l *Lab) namespace(name string, f Families) (*Host, error) {
	n := len(l.hosts) + 1
	if n > MaxHosts {
		return nil, fmt.Errorf("a lab has at most %d hosts", MaxHosts)
	}
	h := &Host{Name: name, NS: fmt.Sprintf("%s-%d", l.name, n), lab: l, number: n, families: f}
	if err := ip("netns", "add", h.NS); err != nil {
		return nil, err
	}
	l.hosts = append(l.hosts, h)
	// No duplicate address detection: addresses are usable without waiting.
	set := map[string]string{"all/accept_dad": "0", "default/accept_dad": "0", "default/dad_transmits": "0"}
	if f == IPv4Only {
		set["all/disable_ipv6"], set["default/disable_ipv6"] = "1", "1"
	}
	script := ""
	for k, v := range set {
		script += "echo " + v + " > /proc/sys/net/ipv6/conf/" + k + "; "
	}
	return h, errors.Join(
		ip("netns", "exec", h.NS, "sh", "-c", "{ "+script+"} 2>/dev/null; :"),
		ip("-n", h.NS, "link", "set", "lo", "up"))
}

// Command prepares a program on the host. It dies with this process, and with ctx, then
// with all that it started.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.NS, name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	return cmd
}

// end kills what still runs in a namespace, and only that: `ip netns pids` lists nothing else.
func end(ns string) {
	pids, err := exec.Command("ip", "netns", "pids", ns).Output() //nolint:noctx // ends by itself
	if err != nil {
		return
	}
	for p := range strings.FieldsSeq(string(pids)) {
		if pid, err := strconv.Atoi(p); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// Close ends what still runs on the hosts and removes them.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	errs := make([]error, 0, len(l.hosts)+1)
	for _, h := range l.hosts {
		end(h.NS)
		errs = append(errs, ip("netns", "del", h.NS))
	}
	l.hosts = nil
	return errors.Join(append(errs, ip("netns", "del", l.name))...)
}
