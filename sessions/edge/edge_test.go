package edge

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/emiago/sipgo/sip"
	"go.uber.org/goleak"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

func TestMain(m *testing.M) {
	sip.SetDefaultLogger(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
}

// node is an edge with its agent, and a web server whose logins are believed.
type node struct {
	t    testing.TB
	edge *Edge
	url  string
	dir  atomic.Pointer[devices.Snapshot]
	self devices.NodeID
	home devices.HomeID

	mu       sync.Mutex
	roster   *devices.Roster
	bindings map[devices.NodeID]devices.Binding
	written  int
	told     []devices.NodeID // phones that were to be woken
	slept    []devices.NodeID // phones that were said to be asleep
	patience time.Duration    // with them
}

// alone are the flows of a node without other members.
type alone struct {
	self devices.NodeID
	done chan struct{}
	once sync.Once
}

func ula(id devices.NodeID) netip.AddrPort {
	a := [16]byte(id)
	a[0] = 0xfd
	return netip.AddrPortFrom(netip.AddrFrom16(a), 5061)
}

func (a *alone) Accept() (net.Conn, error) {
	<-a.done
	return nil, net.ErrClosed
}
func (a *alone) Close() error    { a.once.Do(func() { close(a.done) }); return nil }
func (a *alone) Addr2() net.Addr { return net.TCPAddrFromAddrPort(ula(a.self)) }
func (a *alone) EnsureSIP(context.Context, devices.NodeID) error {
	return errors.New("there is nobody else")
}
func (a *alone) HasSIP(devices.NodeID) bool { return false }
func (a *alone) PeerByAddr(s string) (devices.NodeID, bool) {
	at, err := netip.ParseAddrPort(s)
	return a.self, err == nil && at.Addr() == ula(a.self).Addr()
}

type flows struct{ *alone }

func (f flows) SIP() net.Listener                     { return listener(f) }
func (f flows) Addr(id devices.NodeID) netip.AddrPort { return ula(id) }

type listener struct{ *alone }

func (l listener) Addr() net.Addr { return l.Addr2() }

type noMedia struct{}

func (noMedia) NewLeg(sessions.LegConfig) (sessions.Leg, error) { return nil, errors.New("no media") }

func newNode(t testing.TB) *node {
	n := &node{t: t, self: devices.NodeID{7, 7}, home: devices.HomeID{0xaa}, bindings: map[devices.NodeID]devices.Binding{}, patience: time.Minute}
	n.roster = &devices.Roster{
		Home: n.home, Members: map[devices.NodeID]devices.Member{n.self: {Node: n.self, Slug: "panel", Name: "Panel"}},
		Persons: map[string]devices.Person{},
	}
	n.fold()
	codec := profiles.Codec{Name: "opus", ClockRate: 48000, Channels: 2}
	can := profiles.Capabilities{Audio: profiles.Medium{Direction: profiles.SendRecv, Codecs: []profiles.Codec{codec}}, Video: profiles.Medium{Direction: profiles.Inactive}}
	a, err := sessions.New(sessions.Config{
		Self: n.self, Flows: flows{&alone{self: n.self, done: make(chan struct{})}}, Media: noMedia{}, Capability: can,
		Resolver: func() sessions.Resolver { return n.dir.Load() }, Wake: n.wake,
	})
	if err != nil {
		t.Fatal(err)
	}
	if n.edge, err = New(Config{Agent: a, Self: n.self, Bindings: n, Capability: can}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = a.Run(ctx) })
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _ := devices.ParseNodeID(r.FormValue("phone"))
		n.edge.Serve(ctx, Phone{ID: id, Person: r.FormValue("person")}, w, r)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // of connections that say nothing
	srv.StartTLS()
	n.url = srv.URL
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		srv.Close()
		srv.Client().CloseIdleConnections()
		client.CloseIdleConnections()
	})
	return n
}

func (n *node) fold() {
	can := profiles.Medium{Direction: profiles.SendRecv, Codecs: []profiles.Codec{{Name: "opus", ClockRate: 48000, Channels: 2}}}
	n.dir.Store(devices.Fold(devices.Inputs{
		Self: n.self, Roster: n.roster, Bindings: n.bindings,
		Phone: devices.DeviceRecord{Capabilities: profiles.Capabilities{Audio: can, Video: profiles.Medium{Direction: profiles.Inactive}}},
	}))
}

func (n *node) Open(phone devices.NodeID, signed []byte) (Bound, error) {
	b, err := records.OpenBinding(signed, phone, n.self)
	return Bound{Name: b.Binding, Fingerprints: b.Fingerprints, Quiet: b.Quiet, Wakes: b.Wake != nil}, err
}

func (n *node) Publish(phone devices.NodeID, signed []byte, busy bool) error {
	b, err := records.OpenBinding(signed, phone, n.self)
	n.bindingsAre(func(m map[devices.NodeID]devices.Binding) {
		m[phone] = devices.Binding{Node: n.self, Fingerprints: b.Fingerprints, Quiet: b.Quiet, Busy: busy, WakesBy: b.WakesBy()}
	})
	return err
}

func (n *node) Retract(phone devices.NodeID, signed []byte) error {
	b, err := records.OpenBinding(signed, phone, n.self)
	n.bindingsAre(func(m map[devices.NodeID]devices.Binding) {
		delete(m, phone)
		if b.Wake != nil {
			n.slept = append(n.slept, phone)
			m[phone] = devices.Binding{Node: n.self, WakesBy: b.WakesBy(), Quiet: b.Quiet, Asleep: true}
		}
	})
	return err
}

func (n *node) bindingsAre(f func(map[devices.NodeID]devices.Binding)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.written++
	next := map[devices.NodeID]devices.Binding{}
	for k, v := range n.bindings {
		next[k] = v
	}
	f(next)
	n.bindings = next
	n.fold()
}

// page is a phone's page that speaks SIP by hand.
type page struct {
	n       *node
	key     *ecdsa.PrivateKey
	id      devices.NodeID
	person  string
	contact string
	ws      *websocket.Conn
	print   []byte
	seq     int
	quiet   bool // does not want to be disturbed
	wake    *records.Wake
	ask     string // parameters of the next Request-URI
}

var client = &http.Client{Transport: insecure()}

func insecure() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig.InsecureSkipVerify = true
	return t
}

func (n *node) phone(person string) *page {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		n.t.Fatal(err)
	}
	p := &page{n: n, key: key, id: devices.NodeIDOf(&key.PublicKey), person: person, contact: token(), print: bytes.Repeat([]byte{0xab}, 32)}
	n.mu.Lock()
	defer n.mu.Unlock()
	r := *n.roster
	r.Persons = map[string]devices.Person{}
	for k, v := range n.roster.Persons {
		r.Persons[k] = v
	}
	old := r.Persons[person]
	r.Persons[person] = devices.Person{Slug: person, Name: strings.ToUpper(person), Nodes: append(old.Nodes[:len(old.Nodes):len(old.Nodes)], p.id)}
	n.roster = &r
	n.fold()
	return p
}

func (p *page) dial(edit func(http.Header)) (*http.Response, error) {
	h := http.Header{"Origin": {p.n.url}}
	opt := &websocket.DialOptions{HTTPClient: client, HTTPHeader: h, Subprotocols: []string{"sip"}}
	if edit != nil {
		edit(h)
	}
	if h.Get("X-Subprotocol") != "" {
		opt.Subprotocols = []string{h.Get("X-Subprotocol")}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	ws, res, err := websocket.Dial(ctx, "wss"+strings.TrimPrefix(p.n.url, "https")+"/sip?phone="+p.id.String()+"&person="+p.person, opt)
	if err == nil {
		p.ws = ws
		p.n.t.Cleanup(func() { _ = ws.CloseNow() })
	}
	return res, err
}

func (p *page) open() *page {
	p.n.t.Helper()
	if _, err := p.dial(nil); err != nil {
		p.n.t.Fatal(err)
	}
	return p
}

func (p *page) binding(key *ecdsa.PrivateKey, name string) string {
	p.n.t.Helper()
	b, err := records.SealBinding(key, records.Binding{Node: p.n.self, Binding: name, Fingerprints: [][]byte{p.print}, Sequence: 1, Quiet: p.quiet, Wake: p.wake})
	if err != nil {
		p.n.t.Fatal(err)
	}
	return "Hallway-Binding: " + base64.RawURLEncoding.EncodeToString(b) + "\r\n"
}

func (p *page) write(text string) {
	p.n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := p.ws.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		p.n.t.Fatal(err)
	}
}

// request sends one; tags and Call-ID as given.
func (p *page) request(method, to, branch, call, fromTag, toTag, more, body string) {
	p.n.t.Helper()
	p.seq++
	domain := p.n.home.Domain()
	if toTag != "" {
		toTag = ";tag=" + toTag
	}
	if body != "" {
		more += "Content-Type: application/sdp\r\n"
	}
	p.write(fmt.Sprintf("%s sip:%s@%s%s SIP/2.0\r\nVia: SIP/2.0/WSS %s.invalid;branch=z9hG4bK%s\r\nMax-Forwards: 69\r\nFrom: <sip:%s@%s>;tag=%s\r\nTo: <sip:%s@%s>%s\r\nCall-ID: %s\r\nCSeq: %d %s\r\nContact: <sip:%s@%s.invalid;transport=ws>\r\n%sContent-Length: %d\r\n\r\n%s",
		method, to, domain, p.ask, p.contact, branch, p.person, domain, fromTag, to, domain, toTag, call, p.seq, method, p.contact, p.contact, more, len(body), body))
}

// read returns the next message that is no 100 and no pong.
func (p *page) read() sip.Message {
	p.n.t.Helper()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, b, err := p.ws.Read(ctx)
		cancel()
		if err != nil {
			p.n.t.Fatalf("%s hears nothing: %v", p.person, err)
		}
		if string(b) == "\r\n" {
			continue
		}
		m, err := sip.NewParser().ParseSIP(b)
		if err != nil {
			p.n.t.Fatalf("%v: %q", err, b)
		}
		if r, ok := m.(*sip.Response); !ok || r.StatusCode != 100 {
			return m
		}
	}
}

func (p *page) status() int {
	p.n.t.Helper()
	m := p.read()
	r, ok := m.(*sip.Response)
	if !ok {
		p.n.t.Fatalf("%s hears %v, not a response", p.person, m)
	}
	return r.StatusCode
}

func (p *page) asked(method sip.RequestMethod) *sip.Request {
	p.n.t.Helper()
	m := p.read()
	r, ok := m.(*sip.Request)
	if !ok || r.Method != method {
		p.n.t.Fatalf("%s hears %v, not %s", p.person, m, method)
	}
	return r
}

func (p *page) register() *page {
	p.n.t.Helper()
	p.request("REGISTER", p.person, token(), token(), token(), "", p.binding(p.key, p.n.edge.Name()), "")
	if s := p.status(); s != 200 {
		p.n.t.Fatalf("%s is not registered: %d", p.person, s)
	}
	return p
}

func (p *page) sdp() string {
	var digits []string
	for _, b := range p.print {
		digits = append(digits, strings.ToUpper(hex.EncodeToString([]byte{b})))
	}
	return "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=fingerprint:sha-256 " + strings.Join(digits, ":") + "\r\n"
}

// respond answers a request with a tag of its own.
func (p *page) respond(req *sip.Request, code int, tag string) {
	p.n.t.Helper()
	res := sip.NewResponseFromRequest(req, code, "Whatever", nil)
	res.RemoveHeader("To")
	to := req.To()
	res.AppendHeader(&sip.ToHeader{Address: to.Address, Params: sip.HeaderParams{{K: "tag", V: tag}}})
	res.AppendHeader(sip.NewHeader("Contact", fmt.Sprintf("<sip:%s@%s.invalid;transport=ws>", p.contact, p.contact)))
	res.SetBody(nil)
	p.write(res.String())
}
