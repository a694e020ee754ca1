package overlay

import (
	"sync"
	"time"

	"github.com/hallway-home/hallway/devices"
)

const (
	// bytesPerSecond and byteBurst bound what is read from one member. A reader that is
	// behind waits, so TCP slows the sender down and pings still come: an honest exchange
	// of everything (2 MiB of registers) fits the burst.
	bytesPerSecond, byteBurst = 512 << 10, 4 << 20
	// fine is what a refused record, entry or edit costs in bytes: checking a signature
	// takes about as long as reading this much.
	fine = 16 << 10
	// maxDebt: a reader waits at most this long, well under silentAfter, so that a peer
	// that is being slowed down is not taken for dead.
	maxDebt = time.Second
	// exchangesPerSecond and exchangeBurst bound the digests that a peer gets answers to:
	// each may cost up to maxExchange bytes. 130 exchanges carry 64 whole logs.
	exchangesPerSecond, exchangeBurst = 4, 256
	// complainEvery: the same fault of the same peer is logged once in this time.
	complainEvery = 10 * time.Minute
	// maxComplaints bounds the memory of that.
	maxComplaints = 1024
)

// bucket is a token bucket. Its owner guards it.
type bucket struct {
	rate, burst, tokens float64
	at                  time.Time
}

func newBucket(rate, burst float64, now time.Time) bucket {
	return bucket{rate, burst, burst, now}
}

func (b *bucket) fill(now time.Time) {
	b.tokens = min(b.burst, b.tokens+max(0, now.Sub(b.at).Seconds())*b.rate)
	b.at = now
}

// allow takes one token, if there is one.
func (b *bucket) allow(now time.Time) bool {
	b.fill(now)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// spend takes n tokens and says how long to wait until the debt is paid.
func (b *bucket) spend(n float64, now time.Time) time.Duration {
	b.fill(now)
	b.tokens = max(b.tokens-n, -b.rate*maxDebt.Seconds())
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(-b.tokens / b.rate * float64(time.Second))
}

// complaints remembers what was logged about whom.
type complaints struct {
	mu   sync.Mutex
	last map[complaint]time.Time
}

type complaint struct {
	peer   devices.NodeID
	reason string
}

// due reports whether a fault is to be logged now.
func (c *complaints) due(peer devices.NodeID, reason string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := complaint{peer, reason}
	if at, ok := c.last[k]; ok && now.Sub(at) < complainEvery {
		return false
	}
	if c.last == nil || len(c.last) >= maxComplaints {
		c.last = map[complaint]time.Time{}
	}
	c.last[k] = now
	return true
}

// complain logs a fault of a peer once, not once for each packet. reason is one of few
// fixed texts; detail may hold what differs.
func (m *Mesh) complain(peer devices.NodeID, reason string, detail error) {
	if m.complaints.due(peer, reason, time.Now()) {
		m.log.Warn("refused what a member sent", "peer", peer, "reason", reason, "err", detail)
	}
}

// trouble logs a fault of this node itself, once and not at each attempt.
func (m *Mesh) trouble(what string, err error) {
	if err != nil && m.complaints.due(m.self, what, time.Now()) {
		m.log.Error(what, "err", err)
	}
}
