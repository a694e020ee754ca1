package multicast

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// settle: a change comes as a burst of events, and is looked at once. It also bounds how
	// often somebody who makes interfaces in a loop can make this node look.
	settle = 20 * time.Millisecond
	// lookEvery: a look without any event, should the system have lost one.
	lookEvery = 30 * time.Second
	// pollEvery: looks where the system does not tell of changes.
	pollEvery = time.Second
	// every interface may have lost an address: the system had more to tell than it could keep.
	every = 0
)

// Interface is one interface of this host, as it was when last looked at.
type Interface struct {
	Index int
	Name  string
	Flags net.Flags
	// Addrs are sorted. An IPv6 address that the system still checks for duplicates, or has
	// found to be one (RFC 4862 section 5.4), is not among them: sending from it fails.
	Addrs []netip.Prefix
	// Losses counts the IPv4 addresses that went. One may be back before anybody looks, but
	// with the last one the system forgets what groups the interface is in.
	Losses int
}

func (i Interface) equal(o Interface) bool {
	return i.Index == o.Index && i.Name == o.Name && i.Flags == o.Flags && i.Losses == o.Losses && slices.Equal(i.Addrs, o.Addrs)
}

// Monitor knows the interfaces of this host and their addresses, and tells when something
// about them changed, from the system's own events (rtnetlink on Linux). One serves a whole
// process. Its methods may be called from any goroutine.
type Monitor struct {
	log *slog.Logger

	mu     sync.Mutex
	known  bool
	now    []Interface
	losses map[int]int
	watch  map[chan struct{}]struct{}
}

// NewMonitor makes a monitor; it looks at nothing before it is asked. A nil logger discards.
func NewMonitor(log *slog.Logger) *Monitor {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Monitor{log: log, losses: map[int]int{}, watch: map[chan struct{}]struct{}{}}
}

// Interfaces lists all interfaces, as they were at the last change that Run saw, or now if
// nobody has looked yet. The caller leaves the list as it is.
func (m *Monitor) Interfaces() []Interface {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.known {
		m.lookLocked()
	}
	return m.now
}

// Watch gets a signal after each change, until ctx ends. Signals that nobody has taken yet
// are one.
func (m *Monitor) Watch(ctx context.Context) <-chan struct{} {
	ch := make(chan struct{}, 1)
	m.mu.Lock()
	m.watch[ch] = struct{}{}
	m.mu.Unlock()
	context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.watch, ch)
	})
	return ch
}

// Run follows the changes until ctx ends. It never fails: where the system tells nothing,
// it looks once a second.
func (m *Monitor) Run(ctx context.Context) error {
	e, err := openEvents() // before the first look, so that nothing falls between
	if err != nil {
		m.log.Info("interface changes are polled for", "err", err)
		m.poll(ctx)
		return nil
	}
	defer e.close()
	stop := context.AfterFunc(ctx, e.close)
	defer stop()
	m.look(nil)
	for {
		lost, err := e.next(lookEvery)
		if err != nil {
			if ctx.Err() == nil {
				m.log.Warn("interface changes are polled for from now on", "err", err)
				m.poll(ctx)
			}
			return nil
		}
		m.look(lost)
	}
}

func (m *Monitor) poll(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		m.look(nil)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look takes a new picture and tells everybody if it differs; lost are the interfaces from
// which an IPv4 address went.
func (m *Monitor) look(lost map[int]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.losses {
		if lost[i] || lost[every] {
			m.losses[i]++
		}
	}
	before := m.now
	if known := m.known; !m.lookLocked() || known && slices.EqualFunc(before, m.now, Interface.equal) {
		return
	}
	for ch := range m.watch {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// lookLocked keeps the last picture if the system gives none.
func (m *Monitor) lookLocked() bool {
	now, err := listInterfaces()
	if err != nil {
		m.log.Warn("cannot list the network interfaces", "err", err)
		return false
	}
	there := map[int]int{}
	for i := range now {
		x := &now[i]
		slices.SortFunc(x.Addrs, netip.Prefix.Compare)
		x.Losses = m.losses[x.Index]
		there[x.Index] = x.Losses
	}
	m.known, m.now, m.losses = true, now, there
	return true
}
