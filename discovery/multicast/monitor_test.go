package multicast

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// system is a host whose interfaces change as the test says.
type system struct {
	mu     sync.Mutex
	now    []Interface
	broken error
	looks  int
	told   chan error
}

func newSystem(tells bool) (*system, *Monitor) {
	s := &system{told: make(chan error, 1)}
	s.set(Interface{Index: 1, Name: "lo"})
	m := NewMonitor(nil)
	m.list = s.list
	m.open = func() (events, error) {
		if !tells {
			return nil, errors.New("no events here")
		}
		return s, nil
	}
	return s, m
}

func (s *system) list() ([]Interface, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks++
	return slices.Clone(s.now), s.broken
}

func (s *system) set(all ...Interface) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = all
}

func (s *system) looked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.looks
}

func (s *system) next(within time.Duration) error {
	select {
	case err := <-s.told:
		return err
	case <-time.After(within):
		return nil
	}
}

func (s *system) close() {
	select {
	case s.told <- net.ErrClosed:
	default:
	}
}

func run(t *testing.T, m *Monitor) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	synctest.Wait()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func told(ch <-chan struct{}) bool {
	synctest.Wait()
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func eth(addrs ...string) Interface {
	i := Interface{Index: 2, Name: "eth0", Flags: net.FlagUp | net.FlagRunning | net.FlagMulticast}
	for _, a := range addrs {
		i.Addrs = append(i.Addrs, netip.MustParsePrefix(a))
	}
	return i
}

func TestMonitorTellsOfChangesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := newSystem(true)
		run(t, m)
		ch := m.Watch(t.Context())
		idle := s.looked()
		time.Sleep(10*lookEvery + time.Second)
		if n := s.looked() - idle; n != 10 || told(ch) {
			t.Errorf("%d looks without an event in ten times %v", n, lookEvery)
		}
		for i, c := range []struct {
			now  Interface
			want bool
		}{
			{eth("10.0.0.1/24"), true}, {eth("10.0.0.1/24"), false}, {eth("fe80::1/64", "10.0.0.1/24"), true},
			{eth("10.0.0.1/24", "fe80::1/64"), false}, {eth("10.0.0.1/16", "fe80::1/64"), true}, {Interface{Index: 2, Name: "eth0"}, true},
			{Interface{Index: 2, Name: "eth1"}, true},
		} {
			s.set(c.now)
			s.told <- nil
			if got := told(ch); got != c.want {
				t.Errorf("step %d: told %v", i, got)
			}
			if got := m.Interfaces(); len(got) != 1 || got[0].Name != c.now.Name {
				t.Errorf("step %d: %+v", i, got)
			}
		}
		// What the system cannot say is not forgotten.
		s.broken = errors.New("no memory")
		s.told <- nil
		if told(ch) || len(m.Interfaces()) != 1 {
			t.Errorf("a failed look made %+v", m.Interfaces())
		}
		s.broken = nil
		s.set(eth("10.0.0.9/24")) // an event lost
		if time.Sleep(lookEvery + time.Second); !told(ch) {
			t.Error("it relies on events alone")
		}
	})
}

func TestMonitorPollsWhereNobodyTells(t *testing.T) {
	for name, begin := range map[string]bool{"from the start": false, "when the events end": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, m := newSystem(begin)
				run(t, m)
				if begin {
					s.told <- errors.New("the socket broke")
				}
				ch := m.Watch(t.Context())
				synctest.Wait()
				s.set(eth("10.0.0.1/24"))
				if time.Sleep(pollEvery); !told(ch) {
					t.Error("a change was not seen within a second")
				}
			})
		})
	}
}

// What the monitor reads from the system is what the standard library reads, without the
// addresses that are not usable yet.
func TestInterfacesOfThisHost(t *testing.T) {
	m := NewMonitor(nil)
	found := false
	for _, i := range m.Interfaces() {
		std, err := net.InterfaceByIndex(i.Index)
		if err != nil {
			continue // gone meanwhile
		}
		all, err := std.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		if i.Name != std.Name || len(i.Addrs) > len(all) {
			t.Errorf("%+v, and the standard library has %+v %v", i, std, all)
		}
		for _, p := range i.Addrs {
			if !slices.ContainsFunc(all, func(a net.Addr) bool { return a.String() == p.String() }) {
				t.Errorf("%s has %v only here; the standard library has %v", i.Name, p, all)
			}
			found = found || p.Addr() == netip.MustParseAddr("127.0.0.1")
		}
	}
	if !found {
		t.Errorf("no loopback address among %+v", m.Interfaces())
	}
}

// The real events: Run ends when it is told to, though nothing happens.
func TestMonitorEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	m := NewMonitor(nil)
	ch := m.Watch(ctx)
	go func() { done <- m.Run(ctx) }()
	<-ch // it has looked
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it did not end")
	}
}
