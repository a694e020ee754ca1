package web

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"time"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
	"github.com/hallway-home/hallway/devices/trust/webca"
)

const (
	// loginContext keeps a signature from meaning anything else than a login.
	loginContext = "hallway-login/1"
	// syncTime bounds how long a login waits for rosters to be compared.
	syncTime = 5 * time.Second
)

// login implements api.Doors.
type login struct {
	*Server
	challenges *Challenges
}

// requestKey carries what the doors need of the request.
type requestKey struct{}

type request struct{ source, host string }

func withSource(ctx context.Context, r *http.Request) context.Context {
	return context.WithValue(ctx, requestKey{}, request{source(r), r.Host})
}

func requestOf(ctx context.Context) request {
	r, _ := ctx.Value(requestKey{}).(request)
	return r
}

// Challenge implements api.Doors.
func (l *login) Challenge(context.Context) (api.Challenge, error) {
	return api.Challenge{Challenge: l.challenges.New(), Home: l.cfg.Roster().Home}, nil
}

// Statement is what a phone signs to log in.
func Statement(host string, home devices.HomeID, challenge string) []byte {
	return []byte(loginContext + "\x00" + host + "\x00" + home.String() + "\x00" + challenge)
}

// Login implements api.Doors.
func (l *login) Login(ctx context.Context, in api.LoginRequest) (string, api.Session, error) {
	from := requestOf(ctx)
	if l.pace.barred(from.source) {
		return "", api.Session{}, api.ErrOften
	}
	select {
	case <-l.cfg.Synced: // a node that was alone may not know yet who was removed
	case <-time.After(syncTime):
	case <-ctx.Done():
		return "", api.Session{}, ctx.Err()
	}
	who, p, err := l.signed(from.host, in)
	if err != nil {
		l.pace.failed(from.source)
		l.log.Info("a login was refused", "from", from.source, "why", err)
		return "", api.Session{}, err
	}
	token, s := l.sessions.open(who)
	return cookie(token), describe(s, p), nil
}

// signed checks a login's signature; the key is looked up first, so that strangers cost no
// arithmetic.
func (l *login) signed(host string, in api.LoginRequest) (Session, devices.Person, error) {
	if !l.challenges.Fresh(in.Challenge) {
		return Session{}, devices.Person{}, errors.Join(api.ErrLogin, ErrChallenge)
	}
	pub, err := devices.ParseCompressedKey(in.Key)
	if err != nil {
		return Session{}, devices.Person{}, api.ErrLogin
	}
	id := devices.NodeIDOf(pub)
	r := l.cfg.Roster()
	if r.Lost[id] {
		return Session{}, devices.Person{}, trust.ErrPhoneLost
	}
	p, access := l.who(id)
	if access == api.AsNobody {
		return Session{}, p, api.ErrLogin
	}
	if !trust.VerifyRaw(pub, Statement(host, r.Home, in.Challenge), in.Signature) { // check: login signature
		return Session{}, p, api.ErrLogin
	}
	if !l.challenges.Once(in.Challenge) { // check: challenge once
		return Session{}, p, errors.Join(api.ErrLogin, ErrChallenge)
	}
	return Session{Person: p.Slug, Phone: id, Key: in.Key, Access: access}, p, nil
}

func describe(s *session, p devices.Person) api.Session {
	return api.Session{Person: p.Slug, Name: p.Name, Role: s.Access.String(), Phone: s.Phone, CSRF: s.csrf}
}

// Session implements api.Doors.
func (l *login) Session(ctx context.Context) api.Session {
	s, ok := ctx.Value(sessionKey{}).(*session)
	if !ok {
		return api.Session{}
	}
	p, _ := l.who(s.Phone)
	return describe(s, p)
}

// Logout implements api.Doors.
func (l *login) Logout(ctx context.Context) string {
	if s, ok := ctx.Value(sessionKey{}).(*session); ok {
		l.sessions.close(s)
	}
	return cookie("")
}

// PairPhone implements api.Doors.
func (l *login) PairPhone(ctx context.Context, in api.PairPhoneRequest) (api.PhoneResult, error) {
	from := requestOf(ctx)
	if l.pace.barred(from.source) {
		return api.PhoneResult{}, api.ErrOften
	}
	if _, err := devices.ParseCompressedKey(in.Key); err != nil {
		return api.PhoneResult{}, errors.Join(api.ErrInput, err)
	}
	done, err := l.cfg.Pair(ctx, Phone{Key: in.Key, Name: trust.PlainText(in.Name), Proof: in.Proof})
	if err != nil {
		l.pace.failed(from.source)
		return api.PhoneResult{}, err
	}
	out := api.PhoneResult{State: "waiting", Words: PhoneWords(in.Key)}
	if done {
		out.State = "paired"
	}
	return out, nil
}

// Carries implements api.Carrier.
func (l *login) Carries() bool { return l.cfg.Carrier != nil && l.cfg.Carrier.Carries() }

// Carry implements api.Carrier.
func (l *login) Carry(ctx context.Context, w api.Wish) api.Carried {
	if s, ok := SessionOf(ctx); ok {
		w.Key = s.Key
	}
	return l.cfg.Carrier.Carry(ctx, w)
}

// PhoneWords are the words of a phone's key, to compare two screens.
func PhoneWords(key []byte) string { return webca.Words(sha256.Sum256(key)) }
