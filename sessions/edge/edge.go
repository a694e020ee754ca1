package edge

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
)

const (
	// maxFlows and maxPhoneFlows bound what phones make this node hold: each flow takes about
	// 30 kB. A person has a few tabs open; a home has at most 128 keys.
	maxFlows, maxPhoneFlows = 128, 8
	// maxDialogs bounds the calls that pass through here: as many as a node has itself.
	maxDialogs = 128
	// goneAfter: a phone or member that comes back sooner keeps its calls (decisions: 10 s).
	goneAfter = 10 * time.Second
	// sleepsAfter: a phone that can be woken is asleep once its pages have been gone that long; a reload is quicker.
	sleepsAfter = 2 * time.Second
	// frozenAfter: a page that says nothing, though it pings every 1.5 s, was put to sleep by its system. Its browser
	// still answers for it.
	frozenAfter = 8 * time.Second
	// patience bounds how long the other side rings.
	patience = 2 * time.Minute
	// inDialogTime is how long a request within a dialog may take (RFC 3261 section 17.1.2.2).
	inDialogTime = 32 * time.Second
	// byeTime bounds how long the end of a call is told for.
	byeTime = 2 * time.Second
)

// Phone is who a login proved: a key, and the person whose phone it is.
type Phone struct {
	ID     devices.NodeID
	Person string // slug
}

// Bound is a binding that a phone has signed for this node.
type Bound struct {
	Name         string   // of the flow, as this node gave it
	Fingerprints [][]byte // SHA-256 of the phone's DTLS certificates (RFC 8122)
	Quiet        bool     // its person does not want to be disturbed on it
	Wakes        bool     // it can be woken once its page is closed
}

// published is what the home was told of a phone.
type published struct {
	Bound
	signed []byte
	busy   bool
	asleep bool
	since  time.Time
}

// Bindings proves and shares what phones sign.
type Bindings interface {
	// Open checks that the phone signed this for this node.
	Open(phone devices.NodeID, signed []byte) (Bound, error)
	Publish(phone devices.NodeID, signed []byte, busy bool) error
	// Retract says that a phone is reached here no more; of one that can be woken, that it is asleep.
	Retract(phone devices.NodeID, signed []byte) error
}

// Config of an Edge. Agent, Self and Bindings are required.
type Config struct {
	Agent      *sessions.Agent
	Self       devices.NodeID
	Bindings   Bindings
	Capability profiles.Capabilities // of a browser
	// MayRing is asked before a person's phones ring; nil: every member and phone may.
	MayRing func(from devices.Device, person string) error
	Logger  *slog.Logger // nil discards
}

// Edge is registrar and proxy for the phones of one node.
type Edge struct {
	cfg   Config
	agent *sessions.Agent
	log   *slog.Logger
	name  string // of this run, which phones sign

	mu      sync.Mutex
	stopped bool
	next    uint64             // of the flows' addresses
	flows   map[string]*socket // by address
	tabs    map[string]*tab    // by phone and contact
	bound   map[devices.NodeID]published
	dialogs map[dialogKey]*dialog // each under two keys
	shown   map[string]*tab       // pages whose call rings and shows its picture, by token
}

// New makes an edge and gives it to its agent, which must not run yet.
func New(cfg Config) (*Edge, error) {
	if cfg.Agent == nil || cfg.Bindings == nil {
		return nil, errors.New("edge: agent and bindings are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	e := &Edge{
		cfg: cfg, agent: cfg.Agent, log: cfg.Logger, name: token(),
		flows: map[string]*socket{}, tabs: map[string]*tab{}, bound: map[devices.NodeID]published{}, dialogs: map[dialogKey]*dialog{}, shown: map[string]*tab{},
	}
	cfg.Agent.SetEdge(e)
	return e, nil
}

// Stop implements sessions.Edge: every call through here ends, and every flow.
func (e *Edge) Stop() {
	e.mu.Lock()
	e.stopped = true
	var flows []*socket
	for _, s := range e.flows {
		flows = append(flows, s)
	}
	phones := e.bound
	e.bound = map[devices.NodeID]published{}
	e.mu.Unlock()
	var wg sync.WaitGroup
	for _, d := range e.all() {
		wg.Go(func() { e.end(d, nil, sessions.Reason(503, "The node that this phone uses stops.")) })
	}
	wg.Wait()
	for phone, p := range phones {
		if !p.asleep {
			e.retract(phone, p)
		}
	}
	for _, s := range flows {
		s.close()
	}
}

func (e *Edge) retract(phone devices.NodeID, p published) {
	if err := e.cfg.Bindings.Retract(phone, p.signed); err != nil {
		e.log.Warn("others cannot be told yet that a phone is gone", "phone", phone, "err", err)
	}
}

// Review implements sessions.Edge: what no longer belongs ends at once.
func (e *Edge) Review(now time.Time) {
	r := e.agent.Resolver()
	e.mu.Lock()
	var strangers []*socket
	left := map[devices.NodeID]published{}
	for _, s := range e.flows {
		if r.HasPhone(s.phone.ID) {
			continue
		}
		if s.barred { // its page was told that its calls ended
			strangers = append(strangers, s)
		}
		s.barred = true
	}
	for key, t := range e.tabs {
		if t.flow != nil && now.After(t.expires) { // RFC 3261 section 10.3: not refreshed
			t.flow.tab, t.flow, t.goneSince = nil, nil, now
		}
		if t.flow == nil && (now.Sub(t.goneSince) > goneAfter || !r.HasPhone(t.phone.ID)) {
			delete(e.tabs, key)
			if p, told := e.bound[t.phone.ID]; told && !e.hasTab(t.phone.ID) {
				delete(e.bound, t.phone.ID)
				if !p.asleep {
					left[t.phone.ID] = p
				}
			}
		}
	}
	back := e.turn(left, now)
	e.mu.Unlock()
	for _, s := range strangers {
		e.log.Info("a phone no longer belongs to this home", "phone", s.phone.ID)
		s.close()
	}
	for phone, p := range left {
		e.retract(phone, p)
	}
	for phone, p := range back {
		if err := e.cfg.Bindings.Publish(phone, p.signed, p.busy); err != nil {
			e.log.Warn("others cannot be told that a phone is awake", "phone", phone, "err", err)
		}
	}
	for _, d := range e.all() {
		e.reviewDialog(d, r, now)
	}
	e.sayBusy()
}

// sayBusy tells the home which phones are in a call, once that has changed. It runs with each
// review, so calls in quick succession cost one record a second. A call without sound is none: a page that
// rings looks at who is at the door.
func (e *Edge) sayBusy() {
	busy := map[devices.NodeID]bool{}
	for _, d := range e.all() {
		for i := range d.ends {
			if t := d.ends[i].tab; t != nil && d.sound {
				busy[t.phone.ID] = true
			}
		}
	}
	changed := map[devices.NodeID]published{}
	e.mu.Lock()
	for phone, p := range e.bound {
		if p.busy != busy[phone] && !p.asleep {
			p.busy = busy[phone]
			e.bound[phone], changed[phone] = p, p
		}
	}
	e.mu.Unlock()
	for phone, p := range changed {
		if err := e.cfg.Bindings.Publish(phone, p.signed, p.busy); err != nil {
			e.log.Warn("others cannot be told that a phone is in a call", "phone", phone, "err", err)
		}
	}
}

func (e *Edge) reviewDialog(d *dialog, r sessions.Resolver, now time.Time) {
	for i := range d.ends {
		end := &d.ends[i]
		var belongs bool
		if end.tab != nil {
			belongs = r.HasPhone(end.tab.phone.ID)
		} else {
			_, belongs = r.Device(end.node)
		}
		e.mu.Lock()
		here := end.tab != nil && end.tab.flow != nil || end.tab == nil && e.agent.HasFlow(end.node)
		switch {
		case here:
			end.goneSince = time.Time{}
		case end.goneSince.IsZero():
			end.goneSince = now
		}
		gone := !belongs || !here && now.Sub(end.goneSince) > goneAfter
		e.mu.Unlock()
		if gone {
			why := sessions.Reason(503, "The connection was lost.")
			if !belongs {
				why = sessions.Reason(403, "It no longer belongs to this home.")
			}
			e.log.Info("a call ends because one side is gone", "call", d.callID)
			if !belongs && here {
				end = nil // it is told as well: nobody else would free its camera
			}
			e.agent.Spawn(func() { e.end(d, end, why) })
			return
		}
	}
}

// turn notes which phones that can be woken have fallen asleep, in left, and gives those that are awake again; mu is
// held. A call keeps its phone awake.
func (e *Edge) turn(left map[devices.NodeID]published, now time.Time) (back map[devices.NodeID]published) {
	back = map[devices.NodeID]published{}
	for phone, p := range e.bound {
		if !p.Wakes {
			continue
		}
		talks, lingers := false, false
		for _, t := range e.tabs {
			if t.phone.ID == phone {
				talks = talks || t.flow != nil && now.Sub(t.flow.heardAt()) < frozenAfter
				lingers = lingers || t.flow == nil && now.Sub(t.goneSince) < sleepsAfter
			}
		}
		switch {
		case p.asleep && talks:
			p.asleep = false
			e.bound[phone], back[phone] = p, p
		case !p.asleep && !talks && !lingers && !p.busy && now.Sub(p.since) > sleepsAfter:
			p.asleep = true
			e.bound[phone], left[phone] = p, p
		}
	}
	return back
}

// hasTab reports whether a phone has one, gone for a moment or not; mu is held.
func (e *Edge) hasTab(phone devices.NodeID) bool {
	for _, t := range e.tabs {
		if t.phone.ID == phone {
			return true
		}
	}
	return false
}

// person is the AOR that a phone speaks for.
func (e *Edge) person(slug string) (devices.AOR, error) {
	r, ok := e.agent.Resolver().Resolve(slug)
	if !ok || r.Kind != devices.KindPerson {
		return devices.AOR{}, sessions.Refusal(403, "Forbidden")
	}
	return r.AOR, nil
}

// Name is this run's name for the flows of its phones: a binding that bears another is old.
func (e *Edge) Name() string { return e.name }

// Take implements sessions.Edge.
func (e *Edge) Take(req *sip.Request, tx *sip.ServerTx) bool {
	e.mu.Lock()
	s := e.flows[req.Source()]
	e.mu.Unlock()
	if s != nil {
		e.fromPhone(s, req, tx)
		return true
	}
	peer, ok := e.agent.Peer(req)
	if !ok {
		return false
	}
	if _, inside := req.To().Params.Get("tag"); inside {
		d, i := e.find(req)
		if d == nil || d.ends[i].tab != nil || d.ends[i].node != peer { // check: member's dialog
			return false
		}
		e.pass(d, i, req, tx)
		return true
	}
	only, phones := sessions.MeansPhones(req.Recipient)
	if req.Method == sip.INVITE && (phones || e.meansPreview(req.Recipient)) {
		e.fromMember(req, tx, peer, only)
		return true
	}
	return false
}
