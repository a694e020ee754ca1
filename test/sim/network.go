package sim

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// window is how much one direction of a connection holds before its writer waits.
	window = 1 << 20
	// backlog bounds connections that nobody has accepted yet.
	backlog = 64
	// synAgain is when a lost first packet is sent again (RFC 6298 section 2.1).
	synAgain = time.Second
	// lostAgain is the shortest time after which a lost segment is sent again; it doubles.
	lostAgain = 200 * time.Millisecond
	// resetOdds: of so many lost segments one takes its connection with it.
	resetOdds = 30
)

// Weather is what every packet goes through.
type Weather struct {
	Delay time.Duration // at most, one way; each packet draws its own
	Loss  float64       // share of packets that are lost
}

// Network is a LAN in memory. It starts no goroutine, and whoever waits in it waits on
// channels, so that virtual time goes on (testing/synctest).
type Network struct {
	mu      sync.Mutex
	rng     *rand.Rand
	weather Weather
	hosts   map[netip.Addr]*Host
	ends    map[*end]struct{}
	port    uint16 // the last one given to a dialler
}

// NewNetwork makes a LAN whose accidents follow from the seed.
func NewNetwork(seed uint64) *Network {
	return &Network{
		rng: rand.New(rand.NewPCG(seed, 2)), hosts: map[netip.Addr]*Host{}, ends: map[*end]struct{}{},
		weather: Weather{Delay: time.Millisecond}, port: 32768,
	}
}

// SetWeather changes what packets go through from now on.
func (n *Network) SetWeather(w Weather) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.weather = w
}

// Host is one machine of the LAN; its Listen and Dial are those of overlay.Network.
type Host struct {
	net  *Network
	addr netip.Addr // guarded by net.mu
	side uint32     // hosts of different sides do not hear each other; guarded by net.mu
	up   bool       // answers at all
	ln   *listener
}

// Host adds a machine; it is up.
func (n *Network) Host(addr netip.Addr) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := &Host{net: n, addr: addr, up: true}
	n.hosts[addr] = h
	return h
}

// Cut puts a host on a side: only hosts of one side hear each other. What was under way
// arrives after the sides are one again.
func (n *Network) Cut(side map[*Host]uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for h, s := range side {
		h.side = s
	}
	now := time.Now()
	for e := range n.ends {
		if e.cut() {
			continue
		}
		late := time.Duration(0)
		for i := range e.in {
			if !e.in[i].at.After(now) { // waiting for its reader, or for this moment
				late = max(late, time.Duration(n.rng.Int64N(int64(time.Second))))
				e.in[i].at = now.Add(late)
			}
		}
		e.wake()
	}
}

// Move gives the host another address, as DHCP may. Connections of the old one lead nowhere,
// and nobody is told.
func (h *Host) Move(addr netip.Addr) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hosts[h.addr] == h {
		delete(n.hosts, h.addr)
	}
	h.addr = addr
	n.hosts[addr] = h
	for e := range n.ends {
		e.lost = e.lost || e.host == h || e.peer.host == h
	}
}

// Hears reports whether packets go from a to b.
func (n *Network) Hears(a, b *Host) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return a.up && b.up && a.side == b.side
}

// Kill ends the process on the host: the kernel resets its connections.
func (h *Host) Kill() { h.end(false) }

// PowerOff ends the machine: nobody is told anything.
func (h *Host) PowerOff() { h.end(true) }

func (h *Host) end(silent bool) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.up = !silent
	h.ln.close()
	h.ln = nil
	for e := range h.net.ends {
		if e.host != h {
			continue
		}
		e.fail(net.ErrClosed)
		if !silent {
			e.peer.push(segment{err: syscall.ECONNRESET})
		}
	}
}

// PowerOn lets a machine answer again; it resets what it no longer knows.
func (h *Host) PowerOn() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.up = true
	for e := range h.net.ends {
		if e.peer.host == h && e.peer.err != nil {
			e.push(segment{err: syscall.ECONNRESET})
		}
	}
}

// Listen takes the port of addr; its host part does not matter.
func (h *Host) Listen(addr string) (net.Listener, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	p, err := net.LookupPort("tcp", port)
	if err != nil {
		return nil, err
	}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if h.ln != nil {
		return nil, syscall.EADDRINUSE
	}
	h.ln = &listener{host: h, addr: netip.AddrPortFrom(h.addr, uint16(p)), queue: make(chan *end, backlog), done: make(chan struct{})}
	return h.ln, nil
}

// Dial connects. A host that cannot be heard answers nothing until ctx ends.
func (h *Host) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	h.net.mu.Lock()
	wait := 2 * h.net.draw()
	h.net.mu.Unlock()
	for {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		case <-t.C:
		}
		c, err := h.net.connect(h, addr)
		if c != nil || err != nil {
			return c, err
		}
		wait = synAgain
	}
}

// connect gives neither connection nor error when the first packet is lost.
func (n *Network) connect(from *Host, addr netip.AddrPort) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	to := n.hosts[addr.Addr()]
	switch {
	case !from.up:
		return nil, syscall.ENETDOWN
	case to == nil || !to.up || to.side != from.side || n.rng.Float64() < n.weather.Loss:
		return nil, nil
	case to.ln == nil || to.ln.addr.Port() != addr.Port():
		return nil, syscall.ECONNREFUSED
	}
	n.port++
	a := &end{net: n, host: from, local: netip.AddrPortFrom(from.addr, n.port), remote: addr, changed: make(chan struct{})}
	b := &end{net: n, host: to, local: addr, remote: a.local, changed: make(chan struct{})}
	a.peer, b.peer = b, a
	select {
	case to.ln.queue <- b:
	default:
		return nil, nil
	}
	n.ends[a], n.ends[b] = struct{}{}, struct{}{}
	return a, nil
}

// draw gives one packet's delay; mu is held.
func (n *Network) draw() time.Duration {
	return time.Duration(n.rng.Int64N(int64(n.weather.Delay) + 1))
}

type listener struct {
	host  *Host
	addr  netip.AddrPort
	queue chan *end
	done  chan struct{}
}

// Accept returns the next connection.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Addr is the port taken.
func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// Close gives the port back.
func (l *listener) Close() error {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	if l.host.ln == l {
		l.host.ln = nil
	}
	l.close()
	return nil
}

// close ends Accept and resets what waits; mu is held.
func (l *listener) close() {
	if l == nil {
		return
	}
	select {
	case <-l.done:
		return
	default:
	}
	close(l.done)
	for {
		select {
		case e := <-l.queue:
			e.fail(net.ErrClosed)
			e.peer.push(segment{err: syscall.ECONNRESET})
		default:
			return
		}
	}
}

// segment is what one Write put on the wire, or the end of the connection.
type segment struct {
	at   time.Time // when it arrives
	data []byte
	err  error
}

// end is one end of a connection; everything in it is guarded by net.mu.
type end struct {
	net           *Network
	host          *Host
	peer          *end
	local, remote netip.AddrPort

	lost          bool      // an address of it is gone
	in            []segment // under way to this end, in order
	size          int
	err           error // why this end can no longer be used
	readBy, sayBy time.Time
	changed       chan struct{} // closed and renewed whenever a waiting call should look again
}

func (e *end) wake() {
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *end) cut() bool { return e.lost || e.host.side != e.peer.host.side }

// fail makes the end unusable.
func (e *end) fail(err error) {
	if e.err == nil {
		e.err = err
	}
	e.forget()
	e.wake()
}

// forget drops a connection that neither end uses any more.
func (e *end) forget() {
	if e.err != nil && e.peer.err != nil {
		delete(e.net.ends, e)
		delete(e.net.ends, e.peer)
	}
}

// push sends a segment towards e. Segments of a connection keep their order, as in TCP:
// a lost one holds up those behind it; those of other connections overtake it.
func (e *end) push(s segment) {
	n := e.net
	s.at = time.Now().Add(n.draw())
	for again := lostAgain; n.rng.Float64() < n.weather.Loss && again < 8*lostAgain; again *= 2 {
		s.at = s.at.Add(again)
		if s.err == nil && n.rng.IntN(resetOdds) == 0 {
			s = segment{at: s.at, err: syscall.ECONNRESET}
			e.peer.in = append(e.peer.in, s)
			e.peer.wake()
		}
	}
	if k := len(e.in); k > 0 && e.in[k-1].at.After(s.at) {
		s.at = e.in[k-1].at
	}
	e.in = append(e.in, s)
	e.size += len(s.data)
	e.wake()
}

// wait blocks until something changed or a moment has come; mu is held before and after.
func (e *end) wait(moments ...time.Time) {
	var first time.Time
	for _, t := range moments {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	var timer <-chan time.Time
	if !first.IsZero() {
		t := time.NewTimer(time.Until(first))
		defer t.Stop()
		timer = t.C
	}
	changed := e.changed
	e.net.mu.Unlock()
	select {
	case <-changed:
	case <-timer:
	}
	e.net.mu.Lock()
}

func passed(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

// Read returns what has arrived.
func (e *end) Read(b []byte) (int, error) {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	for {
		var next time.Time
		switch {
		case e.err != nil:
			return 0, e.err
		case passed(e.readBy):
			return 0, os.ErrDeadlineExceeded
		case len(e.in) > 0 && !e.cut():
			next = e.in[0].at
		}
		if passed(next) {
			return e.take(b)
		}
		e.wait(next, e.readBy)
	}
}

func (e *end) take(b []byte) (int, error) {
	s := &e.in[0]
	if s.err != nil {
		if !errors.Is(s.err, io.EOF) {
			e.fail(s.err)
		}
		return 0, s.err
	}
	k := copy(b, s.data)
	s.data = s.data[k:]
	e.size -= k
	if len(s.data) == 0 {
		e.in = e.in[1:]
	}
	if e.size < window && e.size+k >= window {
		e.peer.wake()
	}
	return k, nil
}

// Write puts a copy of b on the wire; it waits only when the other end reads nothing.
func (e *end) Write(b []byte) (int, error) {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	for {
		switch {
		case e.err != nil:
			return 0, e.err
		case passed(e.sayBy):
			return 0, os.ErrDeadlineExceeded
		case e.peer.size < window:
			e.peer.push(segment{data: slices.Clone(b)})
			return len(b), nil
		}
		e.wait(e.sayBy)
	}
}

// Close ends the connection; the other end reads what is under way, then the end.
func (e *end) Close() error {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	if e.err != nil {
		return net.ErrClosed
	}
	e.peer.push(segment{err: io.EOF})
	e.fail(net.ErrClosed)
	return nil
}

// LocalAddr is this end's address.
func (e *end) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(e.local) }

// RemoteAddr is the other end's address.
func (e *end) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(e.remote) }

// SetDeadline bounds reads and writes.
func (e *end) SetDeadline(t time.Time) error { return e.deadline(&t, &t) }

// SetReadDeadline bounds reads.
func (e *end) SetReadDeadline(t time.Time) error { return e.deadline(&t, nil) }

// SetWriteDeadline bounds writes.
func (e *end) SetWriteDeadline(t time.Time) error { return e.deadline(nil, &t) }

func (e *end) deadline(read, write *time.Time) error {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	if read != nil {
		e.readBy = *read
	}
	if write != nil {
		e.sayBy = *write
	}
	e.wake()
	return nil
}
