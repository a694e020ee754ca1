package sessions

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is a home of agents on flows between them. Each test only says who calls whom.
type house struct {
	t      testing.TB
	dir    atomic.Pointer[devices.Snapshot]
	roster *devices.Roster
	caps   map[devices.NodeID]devices.DeviceRecord
	phones map[string]*phone
}

// phone is one agent of a house, with all that it needs.
type phone struct {
	*Agent
	house *house
	slug  string
	id    devices.NodeID
	flows *fakeFlows
	media *fakeMedia
	stop  func()
}

var (
	opus   = profiles.Codec{Name: "opus", ClockRate: 48000, Channels: 2}
	h264   = profiles.Codec{Name: "H264", ClockRate: 90000, Fmtp: "packetization-mode=1"}
	both   = capable(profiles.SendRecv, profiles.SendRecv)
	sound  = capable(profiles.SendRecv, profiles.Inactive)
	camera = capable(profiles.SendOnly, profiles.SendOnly)
)

func capable(audio, video profiles.Direction) profiles.Capabilities {
	return profiles.Capabilities{
		Audio: profiles.Medium{Direction: audio, Codecs: []profiles.Codec{opus}},
		Video: profiles.Medium{Direction: video, Codecs: []profiles.Codec{h264}},
	}
}

// member describes one phone of a house.
type member struct {
	slug, room string
	caps       profiles.Capabilities
	config     func(*Config)
	edge       Edge
}

// newHouse starts all members and connects each with each.
func newHouse(t testing.TB, members ...member) *house {
	t.Helper()
	h := &house{
		t: t, phones: map[string]*phone{}, caps: map[devices.NodeID]devices.DeviceRecord{},
		roster: &devices.Roster{Home: devices.HomeID{0xaa}, Members: map[devices.NodeID]devices.Member{}, Rooms: map[string]devices.Room{}},
	}
	for i, m := range members {
		id := devices.NodeID{byte(i + 1), 0x77}
		if m.caps.Audio.Direction == "" {
			m.caps = both
		}
		h.roster.Members[id] = devices.Member{Node: id, Slug: m.slug, Name: strings.ToUpper(m.slug[:1]) + m.slug[1:], Room: m.room}
		if m.room != "" {
			h.roster.Rooms[m.room] = devices.Room{Slug: m.room, Name: m.room}
		}
		h.caps[id] = devices.DeviceRecord{Capabilities: m.caps}
		h.phones[m.slug] = h.newPhone(id, m)
	}
	h.fold()
	for _, m := range members {
		h.phones[m.slug].start()
	}
	for i, a := range members {
		for _, b := range members[i+1:] {
			connect(h.phones[a.slug], h.phones[b.slug])
		}
	}
	return h
}

func (h *house) fold() {
	h.dir.Store(devices.Fold(devices.Inputs{Roster: h.roster, Records: h.caps}))
}

// remove takes a member out of the home.
func (h *house) remove(slug string) {
	r := *h.roster
	r.Members = map[devices.NodeID]devices.Member{}
	for id, m := range h.roster.Members {
		if m.Slug != slug {
			r.Members[id] = m
		}
	}
	h.roster = &r
	h.fold()
}

func (h *house) newPhone(id devices.NodeID, m member) *phone {
	h.t.Helper()
	p := &phone{house: h, slug: m.slug, id: id, media: &fakeMedia{}}
	p.flows = &fakeFlows{house: h, self: id, conns: map[devices.NodeID]*fakeConn{}, accept: make(chan net.Conn), done: make(chan struct{})}
	cfg := Config{
		Self: id, Flows: p.flows, Media: p.media, Capability: m.caps, Version: "test",
		Resolver: func() Resolver { return h.dir.Load() },
	}
	if m.config != nil {
		m.config(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	if m.edge != nil {
		a.SetEdge(m.edge)
	}
	p.Agent = a
	return p
}

func (p *phone) start() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	var once sync.Once
	p.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				p.house.t.Errorf("%s: %v", p.slug, err)
			}
			p.flows.shut()
		})
	}
	p.house.t.Cleanup(func() {
		p.stop()
		eventually(p.house.t, p.slug+" frees what it opened", func() bool { return p.media.open.Load() == 0 && p.media.living.Load() == 0 })
	})
}

// answers makes a phone accept by itself.
func answers(c *Config) { c.AutoAnswer = true }

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("did not happen: %s", what)
}

// is waits until the newest call of a phone is in a state.
func (p *phone) is(s State) CallInfo {
	p.house.t.Helper()
	var got CallInfo
	eventually(p.house.t, fmt.Sprintf("a call of %s is %s", p.slug, s), func() bool {
		calls := p.Calls()
		if len(calls) == 0 {
			return false
		}
		got = calls[len(calls)-1]
		return got.State == s
	})
	return got
}

func (p *phone) calls(target string) *Call {
	p.house.t.Helper()
	c, err := p.Call(target, CallOptions{Video: true})
	if err != nil {
		p.house.t.Fatal(err)
	}
	return c
}

// ula is the synthetic address of a member, as the overlay makes it.
func ula(id devices.NodeID) netip.AddrPort {
	a := [16]byte(id)
	copy(a[1:], id[:15])
	a[0] = 0xfd
	return netip.AddrPortFrom(netip.AddrFrom16(a), 5061)
}

// fakeFlows stands for the overlay: flows are loopback connections under synthetic
// addresses.
type fakeFlows struct {
	house *house
	self  devices.NodeID

	mu     sync.Mutex
	conns  map[devices.NodeID]*fakeConn
	next   uint16
	accept chan net.Conn
	done   chan struct{}
	once   sync.Once
}

type fakeConn struct {
	net.Conn
	local, remote net.Addr
}

func (c *fakeConn) LocalAddr() net.Addr  { return c.local }
func (c *fakeConn) RemoteAddr() net.Addr { return c.remote }

// connect makes the flow between two phones.
func connect(a, b *phone) {
	t := a.house.t
	t.Helper()
	x, y := pair(t)
	a.flows.adopt(x, b.id)
	b.flows.adopt(y, a.id)
}

func pair(t testing.TB) (net.Conn, net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	x, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	y, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return x, y
}

func (f *fakeFlows) adopt(c net.Conn, peer devices.NodeID) {
	f.mu.Lock()
	f.next++
	local := ula(f.self).Addr().As16()
	local[14], local[15] = byte(f.next>>8), byte(f.next)
	fc := &fakeConn{Conn: c, local: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom16(local), 5061)), remote: net.TCPAddrFromAddrPort(ula(peer))}
	f.conns[peer] = fc
	f.mu.Unlock()
	select {
	case f.accept <- fc:
	case <-f.done:
	}
}

// cut closes the flow between two phones and lets both know.
func cut(a, b *phone) {
	for _, p := range []struct{ x, y *phone }{{a, b}, {b, a}} {
		p.x.flows.mu.Lock()
		if c := p.x.flows.conns[p.y.id]; c != nil {
			_ = c.Close()
		}
		delete(p.x.flows.conns, p.y.id)
		p.x.flows.mu.Unlock()
	}
}

func (f *fakeFlows) shut() {
	_ = f.SIP().Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		_ = c.Close()
	}
}

func (f *fakeFlows) SIP() net.Listener                     { return fakeListener{f} }
func (f *fakeFlows) Addr(id devices.NodeID) netip.AddrPort { return ula(id) }

type fakeListener struct{ *fakeFlows }

func (f fakeListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(ula(f.self)) }
func (f fakeListener) Close() error   { f.once.Do(func() { close(f.done) }); return nil }
func (f fakeListener) Accept() (net.Conn, error) {
	select {
	case c := <-f.accept:
		return c, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}

var errUnreachable = errors.New("unreachable")

func (f *fakeFlows) EnsureSIP(_ context.Context, id devices.NodeID) error {
	if !f.HasSIP(id) {
		return errUnreachable
	}
	return nil
}

func (f *fakeFlows) HasSIP(id devices.NodeID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conns[id] != nil
}

func (f *fakeFlows) PeerByAddr(addr string) (devices.NodeID, bool) {
	for id := range f.house.dirMembers() {
		if ula(id).String() == addr {
			return id, true
		}
	}
	return devices.NodeID{}, false
}

func (h *house) dirMembers() map[devices.NodeID]bool {
	out := map[devices.NodeID]bool{}
	for _, d := range h.dir.Load().Devices {
		out[d.Node] = true
	}
	return out
}

// fakeMedia counts what is open; its session description names what flows.
type fakeMedia struct {
	open, living, starts atomic.Int64
	noCodec, blocked     atomic.Bool
	slow                 atomic.Int64 // nanoseconds that Answer takes
	mu                   sync.Mutex
	legs                 []*fakeLeg
}

type fakeLeg struct {
	m        *fakeMedia
	caps     profiles.Capabilities
	mu       sync.Mutex
	started  bool
	closed   bool
	answered int
	media    []MediaState
	done     chan struct{}
	err      error
	broken   chan struct{}
	restarts atomic.Int64
	wish     Wish
	offered  [2]profiles.Direction
	stats    LegStats
}

func (m *fakeMedia) NewLeg(cfg LegConfig) (Leg, error) {
	l := &fakeLeg{m: m, caps: cfg.Capabilities, wish: cfg.Wish, done: make(chan struct{}), broken: make(chan struct{}, 1)}
	m.living.Add(1)
	m.mu.Lock()
	m.legs = append(m.legs, l)
	m.mu.Unlock()
	return l, nil
}

// padding makes a body as large as that of a WebRTC offer.
var padding = "a=" + strings.Repeat("x", 5000) + "\r\n"

func (l *fakeLeg) Offer(context.Context) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, v := l.wants()
	l.offered = [2]profiles.Direction{a, v}
	return fmt.Appendf(nil, "v=0\r\naudio=%s\r\nvideo=%s\r\n%s", a, v, padding), nil
}

func (l *fakeLeg) wants() (audio, video profiles.Direction) {
	return l.wish.Of("audio", l.caps.Audio.Direction), l.wish.Of("video", l.caps.Video.Direction)
}

func (l *fakeLeg) SetWish(w Wish) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wish = w
}

func directions(sdp []byte) (audio, video profiles.Direction) {
	for _, line := range strings.Split(string(sdp), "\r\n") {
		if v, ok := strings.CutPrefix(line, "audio="); ok {
			audio = profiles.Direction(v)
		} else if v, ok := strings.CutPrefix(line, "video="); ok {
			video = profiles.Direction(v)
		}
	}
	return audio, video
}

func (l *fakeLeg) Answer(_ context.Context, offer []byte) ([]byte, error) {
	time.Sleep(time.Duration(l.m.slow.Load()))
	if l.m.noCodec.Load() || len(offer) == 0 {
		return nil, ErrNoCommonCodec
	}
	ao, vo := directions(offer)
	mine, both := l.caps, func(m, o profiles.Direction) profiles.Direction {
		return profiles.Join(m.Sends() && o.Receives(), m.Receives() && o.Sends())
	}
	if both(mine.Audio.Direction, ao) == profiles.Inactive && both(mine.Video.Direction, vo) == profiles.Inactive && ao != profiles.Inactive {
		return nil, ErrNoCommonCodec
	}
	l.mu.Lock()
	aw, vw := l.wants()
	l.mu.Unlock()
	a, v := both(aw, ao), both(vw, vo)
	l.agree(a, v)
	return fmt.Appendf(nil, "v=0\r\naudio=%s\r\nvideo=%s\r\n%s", a, v, padding), nil
}

func (l *fakeLeg) SetAnswer(_ context.Context, answer []byte) error {
	if len(answer) == 0 {
		return ErrMediaFailed
	}
	a, v := directions(answer)
	l.mu.Lock()
	o := l.offered
	l.mu.Unlock()
	l.agree(profiles.Join(o[0].Sends() && a.Receives(), o[0].Receives() && a.Sends()), profiles.Join(o[1].Sends() && v.Receives(), o[1].Receives() && v.Sends()))
	return nil
}

func (l *fakeLeg) agree(a, v profiles.Direction) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answered++
	l.media = nil
	for _, m := range []MediaState{{Kind: "audio", Codec: "opus", Direction: a}, {Kind: "video", Codec: "H264", Direction: v}} {
		if m.Direction != profiles.Inactive && m.Direction != "" {
			l.media = append(l.media, m)
		}
	}
}

func (l *fakeLeg) Start(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.New("closed")
	}
	l.started = true
	l.m.open.Add(1)
	l.m.starts.Add(1)
	return nil
}

func (l *fakeLeg) Media() []MediaState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.media)
}
func (l *fakeLeg) Stats() LegStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}
func (l *fakeLeg) Counters() LegStats    { return l.Stats() }
func (l *fakeLeg) Done() <-chan struct{} { return l.done }

// Connected is at once, or never when the path is blocked.
func (l *fakeLeg) Connected() <-chan struct{} {
	ch := make(chan struct{})
	if !l.m.blocked.Load() {
		close(ch)
	}
	return ch
}
func (l *fakeLeg) Err() error { return l.err }

func (l *fakeLeg) Broken() <-chan struct{} { return l.broken }

func (l *fakeLeg) Reoffer(ctx context.Context, restart bool) ([]byte, error) {
	if restart {
		l.restarts.Add(1)
	}
	return l.Offer(ctx)
}

func (l *fakeLeg) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	l.m.living.Add(-1)
	if l.started {
		l.m.open.Add(-1)
	}
	return nil
}

// fail lets the newest leg break, as ICE does.
func (m *fakeMedia) fail(err error) {
	m.mu.Lock()
	l := m.legs[len(m.legs)-1]
	m.mu.Unlock()
	l.err = err
	close(l.done)
}
