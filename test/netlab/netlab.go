// Package netlab makes hosts of network namespaces: each has its own interfaces, ports
// and processes, on a private bridge in a namespace of its own, so nothing reaches the
// machine's real network. It needs root and `ip` (iproute2).
//
// A Lab and its Hosts may be used from several goroutines once they are made; Close
// ends every process in them. Namespaces of dead runs are swept by the next one.
package netlab

import (
	"context"
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

const prefix = "hwlab"

// ErrUnsupported says that this machine cannot make namespaces.
var ErrUnsupported = errors.New("network namespaces need root and the program ip (Debian: apt install iproute2)")

// Lab is one private network.
type Lab struct {
	name  string
	mu    sync.Mutex
	hosts []*Host
	n     int
}

// Host is one namespace on the lab's bridge.
type Host struct {
	Name string // as given
	NS   string // namespace
	IPv4 string
	IPv6 string
	port string // its end at the bridge
	lab  *Lab
}

// ip runs the ip command.
func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput() //nolint:gosec // our own words
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

var labs struct {
	sync.Mutex
	n int
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
	labs.Lock()
	labs.n++
	l := &Lab{name: fmt.Sprintf("%s-%d-%d", prefix, os.Getpid(), labs.n)}
	labs.Unlock()
	for _, cmd := range [][]string{
		{"netns", "add", l.name},
		{"-n", l.name, "link", "set", "lo", "up"},
		{"-n", l.name, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"},
		{"-n", l.name, "link", "set", "br0", "up"},
	} {
		if err := ip(cmd...); err != nil {
			_ = l.Close()
			return nil, errors.Join(ErrUnsupported, err)
		}
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
		if pid, err := strconv.Atoi(parts[1]); err == nil && syscall.Kill(pid, 0) != nil {
			_ = ip("netns", "del", e.Name())
		}
	}
}

// Host adds a host with IPv4, IPv6 and a link-local address, ready at once.
func (l *Lab) Host(name string) (*Host, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
	h := &Host{
		Name: name, NS: fmt.Sprintf("%s-%d", l.name, l.n), port: fmt.Sprintf("p%d", l.n), lab: l,
		IPv4: fmt.Sprintf("10.77.0.%d", l.n), IPv6: fmt.Sprintf("fd77::%x", l.n),
	}
	l.hosts = append(l.hosts, h)
	if err := ip("netns", "add", h.NS); err != nil {
		return nil, err
	}
	for _, knob := range []string{"net/ipv6/conf/all/accept_dad", "net/ipv6/conf/default/accept_dad", "net/ipv6/conf/default/dad_transmits"} {
		_ = h.write("/proc/sys/"+knob, "0") // addresses are usable without waiting
	}
	for _, cmd := range [][]string{
		{"-n", h.NS, "link", "set", "lo", "up"},
		{"-n", h.NS, "link", "add", "eth0", "type", "veth", "peer", "name", h.port, "netns", l.name},
		{"-n", l.name, "link", "set", h.port, "master", "br0", "up"},
		{"-n", h.NS, "addr", "add", h.IPv4 + "/24", "dev", "eth0"},
		{"-n", h.NS, "link", "set", "eth0", "up"},
		{"-n", h.NS, "addr", "add", h.IPv6 + "/64", "dev", "eth0", "nodad"},
		{"-n", h.NS, "route", "add", "default", "via", "10.77.0.254"},
	} {
		if err := ip(cmd...); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (h *Host) write(path, value string) error {
	return exec.Command("ip", "netns", "exec", h.NS, "sh", "-c", "echo "+value+" > "+path).Run() //nolint:gosec // our own words
}

// Command prepares a program on the host. It dies with this process, and with ctx.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.NS, name}, args...)...) //nolint:gosec // tests name their programs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 3 * time.Second
	return cmd
}

// Down pulls the host's cable; Up plugs it in again.
func (h *Host) Down() error { return ip("-n", h.lab.name, "link", "set", h.port, "down") }

// Up plugs the cable in.
func (h *Host) Up() error { return ip("-n", h.lab.name, "link", "set", h.port, "up") }

// Close ends what still runs on the hosts and removes them.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, h := range l.hosts {
		if pids, err := exec.Command("ip", "netns", "pids", h.NS).Output(); err == nil { //nolint:gosec // our own words
			for _, p := range strings.Fields(string(pids)) {
				if pid, err := strconv.Atoi(p); err == nil {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		}
		errs = append(errs, ip("netns", "del", h.NS))
	}
	l.hosts = nil
	return errors.Join(append(errs, ip("netns", "del", l.name))...)
}
