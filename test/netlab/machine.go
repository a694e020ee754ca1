package netlab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// machineNumber is the machine's own place on a segment. It is not the router's, so hosts
// send it nothing that is for somebody else.
const machineNumber = 253

// Machine is a cable from the machine itself to a segment.
type Machine struct {
	Iface string // the machine's end
	guard *exec.Cmd
	end   io.Closer
}

// FreeSegment gives a LAN whose IPv4 addresses mean nothing to the machine yet: neither an
// address nor a route, the default aside. It is the first one if that will do.
func (l *Lab) FreeSegment() (*Segment, error) {
	for s := l.First(); ; {
		known, err := s.known()
		if err != nil || !known {
			return s, err
		}
		if s.number == 255 {
			return nil, errors.New("all of 10.77.0.0/16 is in use on this machine")
		}
		if s, err = l.Segment(); err != nil {
			return nil, err
		}
	}
}

// known says whether the machine has a route to the segment or to a part of it.
func (s *Segment) known() (bool, error) {
	for _, how := range []string{"match", "root"} { // routes that hold the segment, and that it holds
		out, err := exec.Command("ip", "-4", "route", "show", "table", "all", how, s.ipv4(0)+"/24").Output() //nolint:noctx // ends by itself
		if err != nil {
			return false, fmt.Errorf("ip route: %w", err)
		}
		for l := range strings.Lines(string(out)) {
			if !strings.HasPrefix(l, "default") {
				return true, nil
			}
		}
	}
	return false, nil
}

// Machine plugs the machine itself into a segment, so that a program of the person at it, such
// as a browser, reaches the hosts: by IPv4 unicast alone. No multicast passes, so neither hears
// the other's discovery; nothing else of the machine's network is changed. Close it; when this
// process is killed, a child of its own takes the cable away.
func (l *Lab) Machine(s *Segment) (*Machine, error) {
	const port = "machine"
	m := &Machine{Iface: fmt.Sprintf("%s-%d", prefix, os.Getpid())}
	if err := m.watch(); err != nil {
		return nil, err
	}
	err := errors.Join(
		ip("link", "add", m.Iface, "type", "veth", "peer", "name", port, "netns", l.name),
		// No IPv6 at either end, so neither says anything by itself.
		ip("-n", l.name, "link", "set", port, "addrgenmode", "none"),
		ip("link", "set", m.Iface, "multicast", "off", "addrgenmode", "none"),
		ip("-n", l.name, "link", "set", port, "master", s.Bridge()),
		ip("-n", l.name, "link", "set", port, "type", "bridge_slave", "mcast_flood", "off"),
		ip("-n", l.name, "link", "set", port, "up"),
		ip("addr", "add", s.ipv4(machineNumber)+"/24", "dev", m.Iface),
		ip("link", "set", m.Iface, "up"))
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// watch starts what removes the cable once our end of a pipe is closed, however we ended.
func (m *Machine) watch() error {
	m.guard = exec.Command("sh", "-c", `read -r _; exec ip link del "$1"`, "sh", m.Iface) //nolint:noctx // ends with the pipe
	m.guard.SysProcAttr = &syscall.SysProcAttr{Setsid: true}                              // a terminal's Ctrl-C is not for it
	in, err := m.guard.StdinPipe()
	m.end = in
	return errors.Join(err, m.guard.Start())
}

// Close pulls the cable.
func (m *Machine) Close() error {
	return errors.Join(m.end.Close(), m.guard.Wait())
}
