package edge

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/sessions"
)

// BindingHeader of a REGISTER holds what the phone signed about where it is reached (the body
// of a binding's record), in base64url without padding.
const BindingHeader = "Hallway-Binding"

const (
	// defaultExpires and maxExpires of a registration: it ends with its flow, so it need not be
	// renewed often.
	defaultExpires, maxExpires = 10 * time.Minute, time.Hour
	// maxBinding bounds what is decoded; a record has 1,024 bytes.
	maxBinding = 1024
)

// tab is one registered page of a phone. Its contact stays while its flow comes and goes.
type tab struct {
	phone     Phone
	contact   sip.Uri
	flow      *socket // nil: gone, for now or for good; guarded by Edge.mu, like what follows
	goneSince time.Time
	expires   time.Time
}

func tabKey(phone devices.NodeID, contact sip.Uri) string {
	return phone.String() + "/" + contact.User + "@" + contact.Host
}

// register is RFC 3261 section 10.3 for a page: its contact is the flow it came over (RFC 7118
// section 6), and the first of a phone shares with the home what the phone has signed.
func (e *Edge) register(s *socket, req *sip.Request, tx *sip.ServerTx) {
	contact, lasts, err := e.registration(s, req)
	if err == nil && lasts > 0 {
		if err = e.bind(s, req); err == nil {
			err = e.attach(s, contact, lasts)
		}
	}
	if err != nil {
		e.agent.Refuse(req, tx, err)
		return
	}
	if lasts == 0 {
		e.detach(s)
	}
	res := sip.NewResponseFromRequest(req, 200, "OK", nil)
	if lasts > 0 {
		res.AppendHeader(&sip.ContactHeader{Address: contact, Params: sip.HeaderParams{{K: "expires", V: strconv.Itoa(int(lasts.Seconds()))}}})
	}
	if err := tx.Respond(res); err != nil {
		e.log.Debug("cannot confirm a registration", "err", err)
	}
}

// registration reads what a REGISTER asks for; lasts is 0 when it takes it back.
func (e *Edge) registration(s *socket, req *sip.Request) (contact sip.Uri, lasts time.Duration, err error) {
	if err := e.speaksFor(s, req.To().Address); err != nil {
		return contact, 0, err
	}
	lasts = defaultExpires
	h := req.GetHeader("Expires")
	value, found := "", h != nil
	if found {
		value = h.Value()
	}
	c := req.Contact()
	if c == nil || c.Address.Wildcard {
		if found && strings.TrimSpace(value) == "0" {
			return contact, 0, nil
		}
		return contact, 0, sessions.Refusal(400, "One Contact")
	}
	if p, ok := c.Params.Get("expires"); ok {
		value, found = p, true
	}
	if found {
		n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
		if err != nil {
			return contact, 0, sessions.Refusal(400, "Expires")
		}
		lasts = min(time.Duration(n)*time.Second, maxExpires)
	}
	return *c.Address.Clone(), lasts, nil
}

// speaksFor refuses another name than that of the phone's person.
func (e *Edge) speaksFor(s *socket, u sip.Uri) error {
	aor, err := e.person(s.phone.Person)
	if err != nil {
		return err
	}
	if u.User != aor.Slug || !strings.EqualFold(u.Host, aor.Home.Domain()) { // check: person of a phone
		return sessions.Refusal(403, "Forbidden")
	}
	return nil
}

// bind takes what the phone signed, and shares it unless the home knows as much already.
func (e *Edge) bind(s *socket, req *sip.Request) error {
	h := req.GetHeader(BindingHeader)
	if h == nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		if s.bound.Name == e.name && !e.bound[s.phone.ID].asleep {
			return nil // a refresh
		}
		return sessions.Refusal(403, "A "+BindingHeader+" Is Needed")
	}
	signed, err := base64.RawURLEncoding.DecodeString(strings.TrimSpace(h.Value()))
	if err != nil || len(signed) > maxBinding {
		return sessions.Refusal(400, BindingHeader)
	}
	b, err := e.cfg.Bindings.Open(s.phone.ID, signed)
	if err == nil && b.Name != e.name { // check: binding of this run
		err = sessions.Refusal(403, "Another Binding")
	}
	if err != nil {
		e.log.Warn("a phone signed no binding for this node", "phone", s.phone.ID, "err", err)
		return sessions.Refusal(403, "The Binding Is Not Signed For This Node")
	}
	e.mu.Lock()
	old, known := e.bound[s.phone.ID]
	s.bound = b
	e.bound[s.phone.ID] = published{Bound: b, signed: signed, busy: old.busy, since: time.Now()}
	e.mu.Unlock()
	if known && !old.asleep && same(old.Bound, b) {
		return nil
	}
	return e.cfg.Bindings.Publish(s.phone.ID, signed, old.busy)
}

func same(a, b Bound) bool {
	return a.Name == b.Name && a.Quiet == b.Quiet && a.Wakes == b.Wakes && slices.EqualFunc(a.Fingerprints, b.Fingerprints, bytes.Equal)
}

// attach makes the flow that of the page with this contact. A page that comes back over a new
// flow keeps its calls.
func (e *Edge) attach(s *socket, contact sip.Uri, lasts time.Duration) error {
	key := tabKey(s.phone.ID, contact)
	e.mu.Lock()
	t := e.tabs[key]
	if s.tab != nil && s.tab != t {
		e.mu.Unlock()
		return sessions.Refusal(403, "One Contact For One Connection")
	}
	if t == nil {
		if len(e.tabs) >= 2*maxFlows { // those that are gone count until they are forgotten
			e.mu.Unlock()
			return sessions.Refusal(503, "Too Many Pages")
		}
		t = &tab{phone: s.phone, contact: contact}
		e.tabs[key] = t
	}
	old := t.flow
	t.flow, t.expires, s.tab = s, time.Now().Add(lasts), t
	e.mu.Unlock()
	if old != nil && old != s {
		old.close()
	}
	return nil
}

// detach takes a page's registration back at once.
func (e *Edge) detach(s *socket) {
	e.mu.Lock()
	if t := s.tab; t != nil {
		s.tab = nil
		if t.flow == s {
			t.flow, t.goneSince = nil, time.Now()
		}
	}
	e.mu.Unlock()
}

// ringing lists the registered pages of a person, or of one of their phones alone, that are connected now and may
// ring. quiet: there are others, of phones that are not to be disturbed.
func (e *Edge) ringing(person string, only devices.NodeID) (out []*tab, quiet bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.tabs {
		if t.phone.Person != person || t.flow == nil || only != (devices.NodeID{}) && t.phone.ID != only {
			continue
		}
		if e.bound[t.phone.ID].asleep { // it does not hear; who wakes it calls it alone, once it does
			continue
		}
		if e.bound[t.phone.ID].Quiet { // check: quiet phone
			quiet = true
			continue
		}
		out = append(out, t)
	}
	return out, quiet
}
