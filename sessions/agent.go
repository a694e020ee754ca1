package sessions

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
)

// Agent is the SIP user agent of a device.
type Agent struct {
	cfg  Config
	log  *slog.Logger
	gate *gate
	edge Edge // nil: no phones
	tpl  *sip.TransportLayer
	txl  *sip.TransactionLayer

	mu      sync.Mutex
	ctx     context.Context // of Run; nil before
	calls   map[string]*Call
	order   []string // call IDs, oldest first
	dialogs map[dialogKey]*Call
	watch   map[chan CallInfo]struct{}
	rate    map[devices.NodeID]*bucket
	adopted *doorway
	quiet   atomic.Bool   // every call is refused
	exams   chan struct{} // one token for each examination that runs here
	caps    atomic.Pointer[profiles.Capabilities]
	wg      sync.WaitGroup
}

// New checks the configuration; it starts nothing.
func New(cfg Config) (*Agent, error) {
	if cfg.Flows == nil || cfg.Resolver == nil || cfg.Media == nil {
		return nil, errors.New("sessions: flows, resolver and media are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MinSE <= 0 {
		cfg.MinSE = defaultMinSE
	}
	if cfg.SessionExpires <= 0 {
		cfg.SessionExpires = defaultExpires
	}
	smallBuffers()
	a := &Agent{
		cfg: cfg, log: cfg.Logger, gate: newGate(),
		calls: map[string]*Call{}, dialogs: map[dialogKey]*Call{}, watch: map[chan CallInfo]struct{}{}, rate: map[devices.NodeID]*bucket{},
		exams: make(chan struct{}, maxExams), adopted: newDoorway(),
	}
	a.SetCapability(cfg.Capability)
	quiet := slog.New(slog.DiscardHandler) // it logs each peer's misbehaviour as an error
	a.tpl = sip.NewTransportLayer(noResolver(), sip.NewParser(), nil,
		sip.WithTransportLayerLogger(quiet),
		sip.WithTransportLayerTransports(sip.TransportsConfig{TLS: &sip.TransportTLS{TransportTCP: &sip.TransportTCP{DialerCreate: noDialer}}}))
	a.tpl.OnMessage(a.gate.tap) // before the transaction layer registers
	a.txl = sip.NewTransactionLayer(a.tpl, sip.WithTransactionLayerTerminateOnConnClose(), sip.WithTransactionLayerLogger(quiet),
		sip.WithTransactionLayerUnhandledResponseHandler(func(*sip.Response) {}))
	a.txl.OnRequest(a.onRequest)
	return a, nil
}

// SetQuiet has this device refuse every call, or take them again. A camera that it speaks for is another device.
func (a *Agent) SetQuiet(on bool) { a.quiet.Store(on) }

// Engaged reports whether this device is in a call; one that takes callers by itself, such as a camera, is
// when it takes no more.
func (a *Agent) Engaged() bool {
	if self, err := a.self(); err == nil && a.cfg.Behaviour.Automata {
		return a.busy(self)
	}
	return slices.ContainsFunc(a.live(), func(c *Call) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.info.State == StateActive && !c.as.Foreign
	})
}

// SetCapability changes what this device can do, from the next call on.
func (a *Agent) SetCapability(c profiles.Capabilities) { a.caps.Store(&c) }

func (a *Agent) capability() profiles.Capabilities { return *a.caps.Load() }

// smallBuffers: the library keeps one buffer for each connection for good, by itself of
// 32 KiB: 2 MiB in a home of 64. A stream is read in as many pieces as it takes.
var smallBuffers = sync.OnceFunc(func() { sip.TransportBufferReadSize = 4096 })

var errNoDial = errors.New("there is no connection to that device")

// noDialer makes the library fail at once instead of dialling: flows are the overlay's.
func noDialer(net.Addr) net.Dialer {
	return net.Dialer{ControlContext: func(context.Context, string, string, syscall.RawConn) error { return errNoDial }}
}

func noResolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errNoDial }}
}

// Run serves until ctx ends, then ends every call and returns when all are freed.
func (a *Agent) Run(ctx context.Context) error {
	a.mu.Lock()
	a.ctx = ctx
	a.mu.Unlock()
	served := make(chan error, 2)
	go func() { served <- a.tpl.ServeTLS(a.cfg.Flows.SIP()) }()
	go func() { served <- a.tpl.ServeTLS(a.adopted) }()
	a.reachSelf()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			a.finishAll()
			a.wg.Wait()
			a.gate.close()
			_ = a.cfg.Flows.SIP().Close()
			_ = a.adopted.Close()
			for range cap(served) {
				if err := <-served; err != nil && !errors.Is(err, net.ErrClosed) {
					a.log.Debug("the SIP side ended", "err", err)
				}
			}
			a.txl.Close()
			_ = a.tpl.Close()
			a.closeWatchers()
			return nil
		case <-tick.C:
			a.checkFlows()
			now := time.Now()
			a.examine(now)
			if a.edge != nil {
				a.edge.Review(now)
			}
		}
	}
}

// finishAll ends every call at once: each may wait 2 s for a peer that does not answer.
func (a *Agent) finishAll() {
	var wg sync.WaitGroup
	if a.edge != nil {
		wg.Go(a.edge.Stop)
	}
	for _, c := range a.live() {
		wg.Go(func() { c.finish(ending{code: statusOK, words: "This device stops.", bye: true}) })
	}
	wg.Wait()
}

// spawn runs f as a goroutine that Run waits for. It reports false after the end.
func (a *Agent) spawn(f func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ctx == nil || a.ctx.Err() != nil {
		return false
	}
	a.wg.Add(1)
	go func() {
		defer a.wg.Done()
		f()
	}()
	return true
}

// checkFlows ends calls whose flow has been gone for 10 s, and at once those with
// somebody who no longer belongs.
func (a *Agent) checkFlows() {
	for _, c := range a.live() {
		c.mu.Lock()
		d := c.dialog
		c.mu.Unlock()
		if d == nil {
			continue
		}
		if _, ok := a.cfg.Resolver().Device(d.peer); !ok {
			c.finish(ending{code: statusForbidden, words: d.device.Name + " no longer belongs to this home."})
			continue
		}
		if !a.hasPhones(d.device) {
			c.finish(ending{code: statusForbidden, words: "The phone of " + d.device.Name + " no longer belongs to this home.", bye: true})
			continue
		}
		if slug := c.foreign(d); slug != "" && (!a.isAdopted(slug) || c.as.Foreign && !a.isSpoken(slug)) {
			c.finish(ending{code: statusForbidden, words: "The camera " + slug + " no longer belongs to this home.", bye: true})
			continue
		}
		c.mu.Lock()
		if a.HasFlow(d.peer) {
			c.goneSince = time.Time{}
		} else if c.goneSince.IsZero() {
			c.goneSince = time.Now()
		}
		gone := !c.goneSince.IsZero() && time.Since(c.goneSince) > goneAfter
		c.mu.Unlock()
		if gone {
			c.finish(ending{code: sip.StatusServiceUnavailable, words: "The connection to " + d.device.Name + " was lost."})
		}
	}
}

// isAdopted reports whether the home still has a foreign device of that name.
func (a *Agent) isAdopted(slug string) bool {
	r, ok := a.cfg.Resolver().Resolve(slug)
	return ok && r.Kind == devices.KindForeign
}

func (a *Agent) isSpoken(slug string) bool {
	_, ok := a.speaks(slug)
	return ok
}

// self is this device's row of the directory.
func (a *Agent) self() (devices.Device, error) {
	d, ok := a.cfg.Resolver().Device(a.cfg.Self)
	if !ok {
		return d, ErrNoHome
	}
	return d, nil
}

// poolWait bounds how long a flow that is up may take to reach the SIP library's pool.
const poolWait = 500 * time.Millisecond

// reach returns once requests to a member will find its flow: the overlay's is up, and the
// library has taken it over.
func (a *Agent) reach(ctx context.Context, id devices.NodeID) error {
	if id != a.cfg.Self {
		if err := a.cfg.Flows.EnsureSIP(ctx, id); err != nil {
			return err
		}
	}
	addr := a.cfg.Flows.Addr(id).String()
	for end := time.Now().Add(poolWait); ; {
		c, err := a.tpl.GetConnection("tls", addr)
		if err == nil {
			_, err = c.TryClose() // gives back what GetConnection took
			return err
		}
		if time.Now().After(end) {
			return errNoDial
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func (a *Agent) live() []*Call {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []*Call
	for _, id := range a.order {
		if c := a.calls[id]; !c.ended() {
			out = append(out, c)
		}
	}
	return out
}

// add puts a call into the table; the bound counts living calls, and old ended ones go.
func (a *Agent) add(c *Call) error {
	if len(a.live()) >= maxCalls {
		return ErrTooMany
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.calls[c.id]; ok {
		return refusal{482, "Loop Detected"} // one call reaches a device once
	}
	a.calls[c.id] = c
	a.order = append(a.order, c.id)
	ended := 0
	for i, id := range slices.Backward(a.order) {
		if !a.calls[id].ended() {
			continue
		}
		if ended++; ended > historyLen {
			delete(a.calls, id)
			a.order = slices.Delete(a.order, i, i+1)
		}
	}
	return nil
}

func (a *Agent) call(id string) (*Call, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c, ok := a.calls[id]; ok {
		return c, nil
	}
	var found []*Call // a unique beginning is enough for people
	for _, c := range a.calls {
		if len(id) >= 4 && strings.HasPrefix(c.id, id) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
	case 1:
		return found[0], nil
	default:
		return nil, fmt.Errorf("%w: %d calls begin with %q; give more of it", ErrNoSuchCall, len(found), id)
	}
	return nil, fmt.Errorf("%w: %q; `hallway calls` lists them", ErrNoSuchCall, id)
}

// Calls lists living and recent calls, oldest first.
func (a *Agent) Calls() []CallInfo {
	a.mu.Lock()
	calls := make([]*Call, 0, len(a.order))
	for _, id := range a.order {
		calls = append(calls, a.calls[id])
	}
	a.mu.Unlock()
	out := make([]CallInfo, 0, len(calls))
	for _, c := range calls {
		if c.of == nil {
			out = append(out, c.Info())
		}
	}
	return out
}

// Get returns one call by its ID or the beginning of it.
func (a *Agent) Get(id string) (CallInfo, error) {
	c, err := a.call(id)
	if err != nil {
		return CallInfo{}, err
	}
	return c.Info(), nil
}

// Answer accepts a ringing call.
func (a *Agent) Answer(id string) error {
	c, err := a.call(id)
	if err != nil {
		return err
	}
	return c.decide(accept)
}

// Decline refuses a ringing call.
func (a *Agent) Decline(id string) error {
	c, err := a.call(id)
	if err != nil {
		return err
	}
	return c.decide(decline)
}

// Hangup ends a call in whatever state it is.
func (a *Agent) Hangup(id string) error {
	c, err := a.call(id)
	if err != nil {
		return err
	}
	if c.decide(decline) == nil {
		return nil
	}
	c.finish(ending{code: statusOK, words: "Hung up here.", bye: true})
	return nil
}

// Watch tells each change of a call, until ctx or the agent ends or the reader falls
// far behind.
func (a *Agent) Watch(ctx context.Context) <-chan CallInfo {
	ch := make(chan CallInfo, 256)
	a.mu.Lock()
	a.watch[ch] = struct{}{}
	a.mu.Unlock()
	context.AfterFunc(ctx, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if _, ok := a.watch[ch]; ok {
			delete(a.watch, ch)
			close(ch)
		}
	})
	return ch
}

func (a *Agent) closeWatchers() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for ch := range a.watch {
		close(ch)
	}
	a.watch = map[chan CallInfo]struct{}{}
}

func (a *Agent) tell(info CallInfo) {
	if info.unseen {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for ch := range a.watch {
		select {
		case ch <- info:
		default:
			delete(a.watch, ch)
			close(ch)
		}
	}
}

// bucket bounds INVITEs from one member, and what is logged about it.
type bucket struct {
	tokens float64
	at     time.Time
	warned time.Time
}

// bucket must be called with mu held.
func (a *Agent) bucket(peer devices.NodeID, now time.Time) *bucket {
	b := a.rate[peer]
	if b == nil {
		b = &bucket{tokens: callBurst, at: now}
		a.rate[peer] = b
	}
	return b
}

func (a *Agent) mayInvite(peer devices.NodeID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	b := a.bucket(peer, now)
	b.tokens = min(callBurst, b.tokens+now.Sub(b.at).Seconds()*callsPerSecond)
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// mayWarn reports whether a member's misbehaviour is to be logged: a flood must not fill
// the disk with words about it.
func (a *Agent) mayWarn(peer devices.NodeID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	b := a.bucket(peer, now)
	if !b.warned.IsZero() && now.Sub(b.warned) < warnEvery {
		return false
	}
	b.warned = now
	return true
}
