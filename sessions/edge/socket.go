package edge

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/hallway-home/hallway/devices"
)

const (
	// maxMessage is the largest that the SIP library reads.
	maxMessage = 65535
	// pingEvery finds flows that died without a word; phones sleep in between.
	pingEvery, pingWait = 30 * time.Second, 10 * time.Second
	// writeTime bounds a phone that no longer reads.
	writeTime = 3 * time.Second
	// subprotocol of RFC 7118.
	subprotocol = "sip"
)

// Welcome is what a phone needs to know before it registers.
type Welcome struct {
	Node    devices.NodeID `json:"node"`    // that it signs its binding for
	Binding string         `json:"binding"` // this node's name for its flow, which it signs too
	AOR     devices.AOR    `json:"aor"`     // its person's
}

// Serve answers a logged-in phone. A GET says what to sign (Welcome, JSON); a WebSocket of the
// page's own origin with the subprotocol "sip" becomes a SIP flow, for which Serve returns when
// it has ended. It ends with ctx, too: with the login.
func (e *Edge) Serve(ctx context.Context, phone Phone, w http.ResponseWriter, r *http.Request) {
	aor, err := e.person(phone.Person)
	if err != nil || !e.agent.Resolver().HasPhone(phone.ID) { // check: phone of the home
		http.Error(w, "this phone does not belong to the home", http.StatusForbidden)
		return
	}
	switch {
	case r.Method != http.MethodGet:
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
		return
	case !strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(Welcome{Node: e.cfg.Self, Binding: e.name, AOR: aor})
		return
	}
	if o, err := url.Parse(r.Header.Get("Origin")); err != nil || o.Host == "" || !strings.EqualFold(o.Host, r.Host) { // check: origin of the page
		http.Error(w, "another site may not use this phone", http.StatusForbidden)
		return
	}
	if !slices.Contains(tokens(r.Header.Values("Sec-WebSocket-Protocol")), subprotocol) {
		http.Error(w, "the WebSocket must ask for the subprotocol sip", http.StatusBadRequest)
		return
	}
	s, err := e.admit(phone)
	if err != nil {
		http.Error(w, err.Error(), http.StatusTooManyRequests)
		return
	}
	defer e.lost(s)
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{subprotocol}, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return // it has answered
	}
	ws.SetReadLimit(maxMessage)
	s.open(ctx, ws)
	defer s.close()
	if err := e.agent.Adopt(s.ctx, s); err != nil {
		return
	}
	s.keep()
}

func tokens(values []string) []string {
	var out []string
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			out = append(out, strings.TrimSpace(t))
		}
	}
	return out
}

// admit gives a flow its address, within the bounds.
func (e *Edge) admit(phone Phone) (*socket, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	own := 0
	for _, s := range e.flows {
		if s.phone.ID == phone.ID {
			own++
		}
	}
	if e.stopped || own >= maxPhoneFlows || len(e.flows) >= maxFlows { // check: flows of a phone
		return nil, errors.New("too many pages are open on this phone or in this home; close some")
	}
	e.next++
	s := &socket{phone: phone, local: address(2*e.next + 1), remote: address(2 * e.next)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	e.flows[s.remote.String()] = s
	return s, nil
}

// address is one that is never used again, in the block of addresses that lead nowhere (RFC
// 6666), so it is no member's.
func address(n uint64) net.Addr {
	a := [16]byte{0: 1}
	binary.BigEndian.PutUint64(a[8:], n)
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom16(a), 5061))
}

// lost notes that a flow has ended.
func (e *Edge) lost(s *socket) {
	s.cancel()
	e.mu.Lock()
	delete(e.flows, s.remote.String())
	if t := s.tab; t != nil && t.flow == s {
		t.flow, t.goneSince = nil, time.Now()
	}
	e.mu.Unlock()
	e.agent.Forget(s.remote.String())
}

// socket is the flow of a page, as the SIP library sees it: a stream of messages, each of
// which came as one WebSocket message (RFC 7118 section 5).
type socket struct {
	phone         Phone
	local, remote net.Addr
	ctx           context.Context // ends with the flow
	cancel        context.CancelFunc
	ws            *websocket.Conn
	rest          []byte // read and not passed on; of the reader
	once          sync.Once
	heard         atomic.Int64 // when its page said something last, in Unix nanoseconds

	tab    *tab  // registered through it; guarded by Edge.mu
	bound  Bound // likewise
	barred bool  // its phone is removed: it is told that its calls ended, and then closed; likewise
}

// open ends with the login and with the flow.
func (s *socket) open(ctx context.Context, ws *websocket.Conn) {
	s.ws = ws
	s.heard.Store(time.Now().UnixNano())
	context.AfterFunc(ctx, s.cancel)
}

// keep pings until the flow has ended.
func (s *socket) keep() {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
			ctx, cancel := context.WithTimeout(s.ctx, pingWait)
			err := s.ws.Ping(ctx)
			cancel()
			if err != nil {
				return
			}
		}
	}
}

func (s *socket) close() {
	s.once.Do(func() {
		s.cancel()
		if s.ws != nil {
			_ = s.ws.CloseNow() // a farewell may block
		}
	})
}

// Read implements net.Conn.
func (s *socket) Read(b []byte) (int, error) {
	if len(s.rest) == 0 {
		_, msg, err := s.ws.Read(s.ctx)
		if err != nil {
			s.cancel()
			return 0, net.ErrClosed
		}
		s.heard.Store(time.Now().UnixNano())
		if s.rest, err = whole(msg); err != nil {
			s.cancel()
			return 0, err
		}
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *socket) heardAt() time.Time { return time.Unix(0, s.heard.Load()) }

// Write implements net.Conn; the library writes a whole message at a time.
func (s *socket) Write(b []byte) (int, error) {
	kind := websocket.MessageText
	if !utf8.Valid(b) {
		kind = websocket.MessageBinary
	}
	ctx, cancel := context.WithTimeout(s.ctx, writeTime)
	defer cancel()
	if err := s.ws.Write(ctx, kind, b); err != nil {
		s.cancel()
		return 0, err
	}
	return len(b), nil
}

// Close implements net.Conn; Serve does the rest.
func (s *socket) Close() error { s.cancel(); return nil }

// LocalAddr implements net.Conn.
func (s *socket) LocalAddr() net.Addr { return s.local }

// RemoteAddr implements net.Conn.
func (s *socket) RemoteAddr() net.Addr { return s.remote }

// SetDeadline implements net.Conn; flows end by their context.
func (s *socket) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (s *socket) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (s *socket) SetWriteDeadline(time.Time) error { return nil }

var errFraming = errors.New("a WebSocket message is not one SIP message")

// whole makes sure that a WebSocket message is one SIP message whose length can be told from
// itself, as a stream needs it; RFC 7118 section 5 lets pages leave Content-Length out. Line
// ends alone are a keepalive (RFC 5626 section 3.5.1).
func whole(msg []byte) ([]byte, error) {
	if len(bytes.Trim(msg, "\r\n")) == 0 && len(msg) <= 4 {
		return msg, nil
	}
	msg = bytes.TrimLeft(msg, "\r\n")
	end := bytes.Index(msg, []byte("\r\n\r\n"))
	if end < 0 {
		return nil, errFraming
	}
	head, body := msg[:end+2], msg[end+4:]
	length := -1
	for line := range bytes.Lines(head) {
		name, value, _ := strings.Cut(string(line), ":")
		if name = strings.TrimSpace(name); !strings.EqualFold(name, "Content-Length") && !strings.EqualFold(name, "l") {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 16)
		if err != nil || length >= 0 {
			return nil, errFraming
		}
		length = int(n)
	}
	switch {
	case length == len(body):
		return msg, nil
	case length >= 0 || len(msg) > maxMessage-32:
		return nil, errFraming
	}
	return slices.Concat(head, fmt.Appendf(nil, "Content-Length: %d\r\n\r\n", len(body)), body), nil
}

func token() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}
