package web

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"maps"
	"sync"
	"time"
)

// challengeTime is how long a challenge may be signed.
const challengeTime = time.Minute

// ErrChallenge says that what was signed is not, or no longer, a challenge of this run.
var ErrChallenge = errors.New("the challenge is too old or was used; ask for a new one")

// Challenges are what phones sign to show that they do so now. They are sealed and not stored,
// so that nobody can crowd out those of others; only those that a phone of the home has signed
// are remembered. The seal's key lives as long as the process: nothing signed before a restart
// counts after it. Safe for concurrent use.
type Challenges struct {
	now    func() time.Time
	secret [32]byte

	mu   sync.Mutex
	used map[string]time.Time // by challenge; a phone's signature was on each
}

// NewChallenges makes a key of its own.
func NewChallenges() *Challenges {
	c := &Challenges{now: time.Now, used: map[string]time.Time{}}
	_, _ = rand.Read(c.secret[:]) // never fails (crypto/rand)
	return c
}

func (c *Challenges) seal(b []byte) []byte {
	m := hmac.New(sha256.New, c.secret[:])
	m.Write(b)
	return append(b[:len(b):len(b)], m.Sum(nil)[:16]...)
}

// New makes a challenge: base64url, 54 characters, good for a minute.
func (c *Challenges) New() string {
	b := binary.BigEndian.AppendUint64(nil, uint64(c.now().UnixMilli())) //nolint:gosec // after 1970
	b = append(b, make([]byte, 16)...)
	_, _ = rand.Read(b[8:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(c.seal(b))
}

// Fresh holds for a challenge that was made here within the last minute.
func (c *Challenges) Fresh(challenge string) bool {
	b, err := base64.RawURLEncoding.DecodeString(challenge)
	if err != nil || len(b) != 40 || !hmac.Equal(c.seal(b[:24:24]), b) {
		return false
	}
	age := c.now().Sub(time.UnixMilli(int64(binary.BigEndian.Uint64(b)))) //nolint:gosec // made by New
	return age >= -challengeTime && age < challengeTime
}

// Once takes a challenge that was signed rightly; false: it was taken before.
func (c *Challenges) Once(challenge string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.used, func(_ string, at time.Time) bool { return c.now().Sub(at) > 2*challengeTime })
	if _, ok := c.used[challenge]; ok {
		return false
	}
	c.used[challenge] = c.now()
	return true
}
