package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"sync"
	"time"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
)

const (
	// cookieName: the prefix makes browsers take it from this host alone, over TLS, for all
	// paths (RFC 6265bis section 4.1.3.2).
	cookieName = "__Host-hallway"
	// idleSession ends a session that nobody uses; the app logs in again by its key.
	idleSession = 30 * time.Minute
	// oldSession is when a session takes no new requests; what is open goes on.
	oldSession = 24 * time.Hour
	// maxPerPhone bounds the sessions of a phone: tabs share one, and with 128 phones it
	// bounds them all.
	maxPerPhone = 8
)

// Session is somebody logged in.
type Session struct {
	Person string         // slug
	Phone  devices.NodeID // of the phone's key
	Key    []byte         // that key, compressed
	Access api.Access
	done   <-chan struct{}
}

// Done is closed when the session ends: by logout, by removal of the phone, by its last day.
// Whatever was opened under it must close then.
func (s Session) Done() <-chan struct{} { return s.done }

type sessionKey struct{}

// SessionOf finds whose request it is.
func SessionOf(ctx context.Context) (Session, bool) {
	s, ok := ctx.Value(sessionKey{}).(*session)
	if !ok {
		return Session{}, false
	}
	return s.Session, true
}

type session struct {
	Session
	token [32]byte // hash of the cookie's value
	csrf  string
	born  time.Time
	used  time.Time
	uses  int // requests and streams that are open
	end   context.CancelFunc
	ctx   context.Context //nolint:containedctx // it is the session's life
}

// sessions are in memory alone: after a restart phones log in again.
type sessions struct {
	now func() time.Time

	mu  sync.Mutex
	all map[[32]byte]*session
}

func newSessions(now func() time.Time) *sessions {
	return &sessions{now: now, all: map[[32]byte]*session{}}
}

func random() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// open makes a session and gives the cookie's value.
func (s *sessions) open(who Session) (string, *session) {
	token := random()
	ctx, end := context.WithCancel(context.Background())
	who.done = ctx.Done()
	n := &session{Session: who, token: sha256.Sum256([]byte(token)), csrf: random(), born: s.now(), used: s.now(), end: end, ctx: ctx}
	s.mu.Lock()
	defer s.mu.Unlock()
	var oldest *session
	count := 0
	for _, x := range s.all {
		if x.Phone == who.Phone {
			if count++; oldest == nil || x.used.Before(oldest.used) {
				oldest = x
			}
		}
	}
	if count >= maxPerPhone {
		s.drop(oldest)
	}
	s.all[n.token] = n
	return token, n
}

// drop ends a session; mu is held.
func (s *sessions) drop(x *session) {
	delete(s.all, x.token)
	x.end()
}

// of finds the living session of a request's cookie whose person still may what they might.
func (s *sessions) of(r *http.Request, who func(devices.NodeID) (devices.Person, api.Access)) *session {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.all[sha256.Sum256([]byte(c.Value))]
	if x == nil || s.now().Sub(x.born) > oldSession {
		return nil
	}
	if _, a := who(x.Phone); a != x.Access { // check: removed phone
		s.drop(x)
		return nil
	}
	return x
}

// use holds a session open for a request, whose context ends with it.
func (s *sessions) use(ctx context.Context, x *session) (context.Context, func()) {
	serves(ctx)
	s.mu.Lock()
	x.uses++
	x.used = s.now()
	s.mu.Unlock()
	ctx, cancel := context.WithCancel(context.WithValue(ctx, sessionKey{}, x))
	stop := context.AfterFunc(x.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
		s.mu.Lock()
		defer s.mu.Unlock()
		x.uses--
		x.used = s.now()
	}
}

// review ends the sessions of phones that may no more, or less or more than before, and those that
// nobody uses.
func (s *sessions) review(who func(devices.NodeID) (devices.Person, api.Access)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.all {
		_, a := who(x.Phone)
		if a != x.Access || x.uses == 0 && s.now().Sub(x.used) > idleSession {
			s.drop(x)
		}
	}
}

func (s *sessions) close(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(x)
}

func (s *sessions) endAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.all {
		s.drop(x)
	}
}

// cookie is the header that sets or, with an empty value, ends the session's cookie.
func cookie(value string) string {
	c := http.Cookie{ //nolint:gosec // Secure, HttpOnly and SameSite are all set below
		Name: cookieName, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: int(oldSession.Seconds()),
	}
	if value == "" {
		c.MaxAge = -1
	}
	return c.String()
}
