package sessions

import (
	"slices"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
)

const (
	// gateWait bounds how long a message waits for the one before it; a message that the
	// transaction layer swallows (a retransmission) must not stop its flow.
	gateWait = 50 * time.Millisecond
	// maxKept bounds the transactions, and the calls with a message on its way, that are
	// remembered of one member: what the transaction layer swallows never leaves by itself.
	// A member that fills its own places loses its own oldest.
	maxKept = 256
	// paceBytes and paceBurst bound what one member can make this node do and hold: the
	// transaction layer keeps an INVITE for up to 32 s after its answer (RFC 3261 section
	// 17.2.1), so a flooding member costs 8 MB. It is read slower, and loses nothing.
	paceBytes, paceBurst = 256 << 10, 1 << 20
	// inviteCost and messageCost are what a message costs besides its body, in bytes.
	inviteCost, messageCost = 12 << 10, 2 << 10
)

// gate sits below the transaction layer, in the reader's goroutine. It keeps the
// messages of one dialog in the order of the wire, because the library handles each in
// a goroutine of its own, takes the branch away from a CANCEL or response that comes
// from another member than its transaction, and reads a flooding member slowly.
type gate struct {
	mu      sync.Mutex
	waiting map[gateKey]*pass
	owner   map[string]string     // branch of an INVITE or of our request: the peer's address
	members map[string]*allowance // by address; as many as belong
	done    chan struct{}
}

type gateKey struct{ source, call string }

type pass struct {
	msg  sip.Message
	gone chan struct{}
}

// allowance is what one member has taken, oldest first.
type allowance struct {
	branches []string
	calls    []string
	tokens   float64 // bytes
	at       time.Time
}

func newGate() *gate {
	return &gate{waiting: map[gateKey]*pass{}, owner: map[string]string{}, members: map[string]*allowance{}, done: make(chan struct{})}
}

// close lets waiting readers go.
func (g *gate) close() { close(g.done) }

func branchOf(via *sip.ViaHeader) string {
	if via == nil {
		return ""
	}
	b, _ := via.Params.Get("branch")
	return b
}

// taken names the branch of a request that came here. Of a node that sends to itself, both
// ends of a transaction are here: they must not be one.
func taken(req *sip.Request) string { return "<" + branchOf(req.Via()) }

// tap is called for every message before the transaction layer sees it.
func (g *gate) tap(msg sip.Message) {
	switch m := msg.(type) {
	case *sip.Request:
		g.pace(m.Source(), m.Method == sip.INVITE, len(m.Body()))
		switch m.Method {
		case sip.INVITE:
			g.own(taken(m), m.Source())
		case sip.CANCEL, sip.ACK:
			if g.stolen(taken(m), m.Source()) {
				m.Via().Params.Add("branch", "z9hG4bK-not-yours")
			}
			if m.Method == sip.CANCEL || g.known(taken(m)) {
				return // goes to its INVITE's transaction, past the queue
			}
		}
		g.enter(m, m.Source(), m.CallID())
	case *sip.Response:
		g.pace(m.Source(), false, len(m.Body()))
		if g.stolen(branchOf(m.Via()), m.Source()) || !g.known(branchOf(m.Via())) {
			if m.Via() != nil {
				m.Via().Params.Add("branch", "z9hG4bK-not-yours")
			}
			return
		}
		g.enter(m, m.Source(), m.CallID())
	}
}

// member must be called with mu held.
func (g *gate) member(addr string) *allowance {
	a := g.members[addr]
	if a == nil {
		a = &allowance{tokens: paceBurst, at: time.Now()}
		g.members[addr] = a
	}
	return a
}

// pace holds the reader of a member that says more than its share.
func (g *gate) pace(source string, invite bool, body int) {
	cost := messageCost + body
	if invite {
		cost = inviteCost + body
	}
	g.mu.Lock()
	a, now := g.member(source), time.Now()
	a.tokens = min(paceBurst, a.tokens+now.Sub(a.at).Seconds()*paceBytes) - float64(cost)
	a.at = now
	debt := -a.tokens
	g.mu.Unlock()
	if debt > 0 {
		t := time.NewTimer(time.Duration(debt / paceBytes * float64(time.Second)))
		defer t.Stop()
		select {
		case <-t.C:
		case <-g.done:
		}
	}
}

func (g *gate) enter(msg sip.Message, source string, call *sip.CallIDHeader) {
	if call == nil {
		return
	}
	key := gateKey{source, call.Value()}
	g.mu.Lock()
	before := g.waiting[key]
	g.waiting[key] = &pass{msg, make(chan struct{})}
	if a := g.member(source); before == nil {
		if len(a.calls) >= maxKept {
			g.gone(gateKey{source, a.calls[0]})
		}
		a.calls = append(a.calls, key.call)
	}
	g.mu.Unlock()
	if before == nil {
		return
	}
	t := time.NewTimer(gateWait)
	defer t.Stop()
	select {
	case <-before.gone:
	case <-t.C:
	}
}

// gone lets the message behind pass; it must be called with mu held.
func (g *gate) gone(key gateKey) {
	if p := g.waiting[key]; p != nil {
		close(p.gone)
		delete(g.waiting, key)
	}
	a := g.member(key.source)
	a.calls = without(a.calls, key.call)
}

func without(list []string, x string) []string {
	if i := slices.Index(list, x); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}

// leave says that a message has reached its handler.
func (g *gate) leave(msg sip.Message, source string, call *sip.CallIDHeader) {
	if call == nil {
		return
	}
	key := gateKey{source, call.Value()}
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.waiting[key]; p != nil && p.msg == msg {
		g.gone(key)
	}
}

// forget drops what was kept of an address that never comes back.
func (g *gate) forget(addr string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.members[addr]
	if a == nil {
		return
	}
	for _, b := range a.branches {
		delete(g.owner, b)
	}
	for len(a.calls) > 0 {
		g.gone(gateKey{addr, a.calls[0]})
	}
	delete(g.members, addr)
}

// own remembers whose a branch is.
func (g *gate) own(branch, addr string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.owner[branch]; ok {
		return
	}
	a := g.member(addr)
	if len(a.branches) >= maxKept {
		delete(g.owner, a.branches[0])
		a.branches = a.branches[1:]
	}
	g.owner[branch] = addr
	a.branches = append(a.branches, branch)
}

// free forgets a branch whose transaction is over.
func (g *gate) free(branch string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if addr, ok := g.owner[branch]; ok {
		delete(g.owner, branch)
		a := g.member(addr)
		a.branches = without(a.branches, branch)
	}
}

func (g *gate) known(branch string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.owner[branch]
	return ok
}

// stolen reports whether a branch belongs to another peer.
func (g *gate) stolen(branch, addr string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	owner, ok := g.owner[branch]
	return ok && owner != addr // check: branch owner
}
