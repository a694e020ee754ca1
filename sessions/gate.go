package sessions

import (
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
)

// gateWait bounds how long a message waits for the one before it; a message that the
// transaction layer swallows (a retransmission) must not stop its flow.
const gateWait = 50 * time.Millisecond

// maxBranchesKept bounds the transactions whose owner is remembered.
const maxBranchesKept = 4096

// gate sits below the transaction layer, in the reader's goroutine. It keeps the
// messages of one dialog in the order of the wire, because the library handles each in
// a goroutine of its own, and takes the branch away from a CANCEL or response that
// comes from another member than its transaction.
type gate struct {
	mu      sync.Mutex
	waiting map[gateKey]*pass
	owner   map[string]string // branch of an INVITE or of our request: the peer's address
}

type gateKey struct{ source, call string }

type pass struct {
	msg  sip.Message
	gone chan struct{}
}

func newGate() *gate {
	return &gate{waiting: map[gateKey]*pass{}, owner: map[string]string{}}
}

func branchOf(via *sip.ViaHeader) string {
	if via == nil {
		return ""
	}
	b, _ := via.Params.Get("branch")
	return b
}

// tap is called for every message before the transaction layer sees it.
func (g *gate) tap(msg sip.Message) {
	switch m := msg.(type) {
	case *sip.Request:
		branch := branchOf(m.Via())
		switch m.Method {
		case sip.INVITE:
			g.own(branch, m.Source())
		case sip.CANCEL, sip.ACK:
			if g.stolen(branch, m.Source()) {
				m.Via().Params.Add("branch", "z9hG4bK-not-yours")
			}
			if m.Method == sip.CANCEL || g.known(branch) {
				return // goes to its INVITE's transaction, past the queue
			}
		}
		g.enter(m, m.Source(), m.CallID())
	case *sip.Response:
		if g.stolen(branchOf(m.Via()), m.Source()) || !g.known(branchOf(m.Via())) {
			if m.Via() != nil {
				m.Via().Params.Add("branch", "z9hG4bK-not-yours")
			}
			return
		}
		g.enter(m, m.Source(), m.CallID())
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

// leave says that a message has reached its handler.
func (g *gate) leave(msg sip.Message, source string, call *sip.CallIDHeader) {
	if call == nil {
		return
	}
	key := gateKey{source, call.Value()}
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.waiting[key]; p != nil && p.msg == msg {
		close(p.gone)
		delete(g.waiting, key)
	}
}

// own remembers whose a branch is.
func (g *gate) own(branch, addr string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.owner[branch]; !ok && len(g.owner) < maxBranchesKept {
		g.owner[branch] = addr
	}
}

// free forgets a branch whose transaction is over.
func (g *gate) free(branch string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.owner, branch)
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
