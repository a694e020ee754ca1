package mdns

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/discovery/multicast"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lan is a network segment in memory: it delivers at once and writes down what was said.
type lan struct {
	mu    sync.Mutex
	ports []*nic
	said  []said
}

type said struct {
	at  time.Time
	by  string
	msg *dns.Msg
}

// nic joins one engine's link to a lan.
type nic struct {
	lan  *lan
	host *memHost
	link multicast.Link
}

// memHost is the network of one engine.
type memHost struct {
	name   string
	mu     sync.Mutex
	nics   map[int]*nic
	in     chan multicast.Packet
	events chan struct{}
	direct []*dns.Msg // unicast packets sent
}

func newHost(name string) *memHost {
	return &memHost{name: name, nics: map[int]*nic{}, in: make(chan multicast.Packet, 4096), events: make(chan struct{}, 1)}
}

func (h *memHost) plug(l *lan, index int, addrs ...string) {
	k := multicast.Link{Index: index, Name: "eth" + string(rune('0'+index))}
	for _, a := range addrs {
		k.Addrs = append(k.Addrs, netip.MustParsePrefix(a))
	}
	n := &nic{lan: l, host: h, link: k}
	h.mu.Lock()
	h.nics[index] = n
	h.mu.Unlock()
	l.mu.Lock()
	l.ports = append(l.ports, n)
	l.mu.Unlock()
	h.signal()
}

func (h *memHost) unplug(index int) {
	h.mu.Lock()
	n := h.nics[index]
	delete(h.nics, index)
	h.mu.Unlock()
	n.lan.mu.Lock()
	n.lan.ports = slices.DeleteFunc(n.lan.ports, func(x *nic) bool { return x == n })
	n.lan.mu.Unlock()
	h.signal()
}

func (h *memHost) signal() {
	select {
	case h.events <- struct{}{}:
	default:
	}
}

func (h *memHost) Open() (<-chan multicast.Packet, error) { return h.in, nil }
func (h *memHost) Close()                                 {}
func (h *memHost) Changed() <-chan struct{}               { return h.events }

func (h *memHost) Links() map[int]multicast.Link {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[int]multicast.Link{}
	for i, n := range h.nics {
		out[i] = n.link
	}
	return out
}

func (h *memHost) Multicast(l multicast.Link, v6 bool, data []byte) error {
	h.mu.Lock()
	n := h.nics[l.Index]
	h.mu.Unlock()
	if n == nil {
		return nil
	}
	src, _ := l.Source(v6)
	var m dns.Msg
	if err := m.Unpack(data); err != nil {
		panic("an engine sent what does not parse: " + err.Error())
	}
	n.lan.mu.Lock()
	defer n.lan.mu.Unlock()
	n.lan.said = append(n.lan.said, said{time.Now(), h.name, &m})
	for _, p := range n.lan.ports {
		if _, ok := p.link.Source(v6); ok {
			p.host.in <- multicast.Packet{Data: data, From: netip.AddrPortFrom(src, port), Iface: p.link.Index, Group: true}
		}
	}
	return nil
}

func (h *memHost) Unicast(_ multicast.Link, _ netip.AddrPort, data []byte) error {
	var m dns.Msg
	if err := m.Unpack(data); err != nil {
		panic(err)
	}
	h.mu.Lock()
	h.direct = append(h.direct, &m)
	h.mu.Unlock()
	return nil
}

func (h *memHost) sentDirect() []*dns.Msg {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.direct)
}

// hear gives a host a packet from anywhere.
func (h *memHost) hear(t *testing.T, index int, src string, m *dns.Msg) {
	t.Helper()
	data, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	h.in <- multicast.Packet{Data: data, From: netip.MustParseAddrPort(src), Iface: index, Group: true}
}

// by lists what a host said, since a moment.
func (l *lan) by(name string, since time.Time) []said {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []said
	for _, s := range l.said {
		if s.by == name && !s.at.Before(since) {
			out = append(out, s)
		}
	}
	return out
}

// agent is an engine on a memHost with what it reported.
type agent struct {
	*Engine
	host *memHost
	mu   sync.Mutex
	log  []discovery.Sighting
	stop func() // ends it and waits
}

func start(t *testing.T, h *memHost) *agent {
	t.Helper()
	a := &agent{Engine: New(Config{network: h}), host: h}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.Run(ctx, a.take); err != nil {
			t.Error(err)
		}
	}()
	a.stop = func() { cancel(); <-done }
	t.Cleanup(a.stop)
	return a
}

func (a *agent) take(s discovery.Sighting) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.log = append(a.log, s)
}

func (a *agent) reports() []discovery.Sighting {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.log)
}

// visible lists the instances in sight, by what was reported.
func (a *agent) visible() []string {
	seen := map[string]bool{}
	for _, s := range a.reports() {
		seen[s.Instance] = !s.Gone
	}
	var out []string
	for n, ok := range seen {
		if ok {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// pause lets virtual time pass.
func pause(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func tv(instance, host string) Service {
	return Service{
		Instance: instance, Type: "_hallway._tcp", Subtypes: []string{"_tv"}, Host: host + ".local", Port: 5061,
		Text: []string{"txtvers=1", "class=tv"},
	}
}

func pair(t *testing.T) (*lan, *agent, *agent) {
	t.Helper()
	l := &lan{}
	a, b := newHost("a"), newHost("b")
	a.plug(l, 1, "10.0.0.1/24", "fe80::1/64")
	b.plug(l, 1, "10.0.0.2/24", "fe80::2/64")
	return l, start(t, a), start(t, b)
}

func questions(s []said) (out []said) {
	for _, x := range s {
		if !x.msg.Response {
			out = append(out, x)
		}
	}
	return out
}

func responses(s []said) (out []said) {
	for _, x := range s {
		if x.msg.Response {
			out = append(out, x)
		}
	}
	return out
}

// onceEach drops the second family's copy of each message.
func onceEach(s []said) (out []said) {
	for i, x := range s {
		if i == 0 || !x.at.Equal(s[i-1].at) || x.msg.String() != s[i-1].msg.String() {
			out = append(out, x)
		}
	}
	return out
}

func has(rrs []dns.RR, text string) bool {
	return slices.ContainsFunc(rrs, func(rr dns.RR) bool { return strings.Contains(rr.String(), text) })
}
