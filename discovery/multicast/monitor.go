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
)

// Interface is one interface of this host, as it was when last looked at.
type Interface struct {
	Index int
	Name  string
	Flags net.Flags
	// Addrs are sorted. An IPv6 address that the system still checks for duplicates, or has
	// found to be one (RFC 4862 section 5.4), is not among them: sending from it fails.
	Addrs []netip.Prefix
}

func (i Interface) equal(o Interface) bool {
	return i.Index == o.Index && i.Name == o.Name && i.Flags == o.Flags && slices.Equal(i.Addrs, o.Addrs)
}

// events are what the system tells of interfaces and addresses.
type events interface {
	// next waits for an event, and a moment for more of its burst, or until the time is over.
	next(within time.Duration) error
	close() // ends next
}

// Monitor knows the interfaces of this host and their addresses, and tells when something
// about them changed, from the system's own events (rtnetlink on Linux). One serves a whole
// process. Its methods may be called from any goroutine.
type Monitor struct {
	log *slog.Logger

	// Tests have others.
	list func() ([]Interface, error)
	open func() (events, error)

	mu    sync.Mutex
	known bool
	now   []Interface
	watch map[chan struct{}]struct{}
}

// NewMonitor makes a monitor; it looks at nothing before it is asked. A nil logger discards.
func NewMonitor(log *slog.Logger) *Monitor {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Monitor{log: log, list: listInterfaces, open: openEvents, watch: map[chan struct{}]struct{}{}}
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
	e, err := m.open() // before the first look, so that nothing falls between
	if err != nil {
		m.log.Info("interface changes are polled for", "err", err)
		m.poll(ctx)
		return nil
	}
	defer e.close()
	stop := context.AfterFunc(ctx, e.close)
	defer stop()
	m.look()
	for {
		if err := e.next(lookEvery); err != nil {
			if ctx.Err() == nil {
				m.log.Warn("interface changes are polled for from now on", "err", err)
				m.poll(ctx)
			}
			return nil
		}
		m.look()
	}
}

func (m *Monitor) poll(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		m.look()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look takes a new picture and tells everybody if it differs.
func (m *Monitor) look() {
	m.mu.Lock()
	defer m.mu.Unlock()
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
	now, err := m.list()
	if err != nil {
		m.log.Warn("cannot list the network interfaces", "err", err)
		return false
	}
	for _, i := range now {
		slices.SortFunc(i.Addrs, netip.Prefix.Compare)
	}
	slices.SortFunc(now, func(a, b Interface) int { return a.Index - b.Index })
	m.known, m.now = true, now
	return true
}
