// Package agent wires the rooms of the house together: store, roster, overlay,
// discovery, sessions and media, and answers the API. Run owns every goroutine and
// returns after all have ended, calls first, so that the other side hears of it.
package agent

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/cmd/hallway/internal/config"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/overlay"
	"github.com/hallway-home/hallway/devices/pairing"
	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/devices/trust"
	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/discovery/mdns"
	"github.com/hallway-home/hallway/discovery/multicast"
	"github.com/hallway-home/hallway/discovery/ssdp"
	"github.com/hallway-home/hallway/discovery/wsd"
	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
	"github.com/hallway-home/hallway/sessions/edge"
	"github.com/hallway-home/hallway/sessions/media"
	"github.com/hallway-home/hallway/sessions/rtc"
)

// Options of one run.
type Options struct {
	Logger    *slog.Logger
	Version   string
	JoinToken string              // used while the node belongs to no home
	Ready     func(socket string) // called once the API answers
}

// Agent is one running node.
type Agent struct {
	cfg     config.Config
	opt     Options
	log     *slog.Logger
	profile profiles.Profile
	since   time.Time

	store    *devices.Store
	key      *ecdsa.PrivateKey
	self     devices.NodeID
	roster   *trust.Log
	mesh     *overlay.Mesh
	listen   netip.AddrPort
	dir      *devices.Directory
	monitor  *multicast.Monitor
	mdns     *mdns.Engine
	ssdp     *ssdp.Source
	wsd      *wsd.Source
	tracker  *discovery.Tracker
	media    *rtc.Factory
	box      *media.Box
	encoders *media.Encoders
	caps     atomic.Pointer[profiles.Capabilities] // of this device with its source
	capable  chan struct{}                         // holds a signal when caps changed
	cameras  cameras
	web      webCerts
	phones   phones
	wishes   wishes
	wakes    wakes
	routes   http.Handler // of the API, without those of browsers
	sip      *sessions.Agent
	edge     *edge.Edge

	dnd        atomic.Bool            // as its person wants it
	webListens atomic.Pointer[string] // the companion's port, once it is served

	mu      sync.Mutex
	window  *pairing.Window // open here: a code shown, or an invitation
	invited bool            // the window is an invitation by this owner
	pair    api.PairState
	subs    map[chan api.Event]struct{}
	joining sync.Mutex // one joining at a time

	candidate *candidate    // waits to be named by a person
	opened    chan struct{} // a window was opened
}

// gcPercent keeps the heap of an idle agent near what is alive in it: a small machine has
// other uses for the 2 MiB, and collecting so few objects costs nothing. GOGC overrides it.
const gcPercent = 50

// Run is one agent from its start to its end.
func Run(ctx context.Context, cfg config.Config, opt Options) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if limit := memoryLimit(os.DirFS("/")); limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	}
	a, err := open(cfg, opt)
	if err != nil {
		return err
	}
	return errors.Join(a.run(ctx), a.store.Close())
}

func open(cfg config.Config, opt Options) (a *Agent, err error) {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	a = &Agent{cfg: cfg, opt: opt, log: opt.Logger, since: time.Now(), subs: map[chan api.Event]struct{}{}, opened: make(chan struct{}, 1), capable: make(chan struct{}, 1), pair: api.PairState{State: "closed"}}
	if a.profile, err = cfg.Profile(); err != nil {
		return nil, err
	}
	if a.store, err = devices.OpenStore(cfg.Data, devices.StoreOptions{}); err != nil {
		return nil, err
	}
	store := a.store
	defer func() {
		if err != nil {
			_ = store.Close()
		}
	}()
	if a.key, err = devices.NodeKey(a.store); err != nil {
		return nil, err
	}
	a.self = devices.NodeIDOf(&a.key.PublicKey)
	if a.roster, err = trust.OpenLog(a.store, trust.Options{HomeTime: a.homeTime}); err != nil {
		return nil, err
	}
	a.mesh, err = overlay.New(overlay.Config{
		Key: a.key, Roster: a.roster, Store: a.store, Listen: cfg.Listen, Peers: cfg.Peers, OnPair: a.onPair, Logger: a.log,
	})
	if err != nil {
		return nil, err
	}
	if a.listen, err = a.mesh.Listen(); err != nil {
		return nil, err
	}
	a.dir = devices.NewDirectory(a.self)
	a.tracker = discovery.NewTracker()
	a.openDiscovery()
	if a.window, err = pairing.RestoreWindow(a.store); err != nil {
		return nil, err
	}
	a.invited = a.roster.Roster() != nil
	a.wishes = newWishes()
	a.openWakes()
	a.routes, _ = api.NewHandler(a, nil, opt.Version)
	return a, a.openSessions()
}

func (a *Agent) openSessions() error {
	if err := a.openCameras(); err != nil {
		return err
	}
	var err error
	if a.encoders, err = media.NewEncoders(a.profile.Encoders, a.cfg.EncoderResults()); err != nil {
		return err
	}
	source := media.SourceSpec{Clip: a.cfg.Source.Clip, Encoders: a.encoders}
	sink := media.SinkSpec{Record: a.cfg.Sink.Record}
	if source.Pipeline, err = a.cfg.SourcePipeline(); err != nil {
		return err
	}
	if sink.Pipeline, err = a.cfg.SinkPipeline(); err != nil {
		return err
	}
	a.box = media.NewBox(source, sink, a.log)
	a.restoreVolume()
	caps, err := a.box.Makes(a.profile.Capabilities)
	if err != nil {
		a.log.Warn("what this device can send is not known", "err", err)
	}
	a.caps.Store(&caps)
	a.profile.Behaviour = a.profile.Behaviour.With(source.Pipeline)
	a.media = rtc.New(rtc.Config{Endpoint: a.box, Interfaces: a.cfg.Interfaces, Logger: a.log})
	auto := a.profile.Behaviour.AutoAnswer
	if a.cfg.AutoAnswer != "profile" {
		auto = a.cfg.AutoAnswer == "yes"
	}
	a.sip, err = sessions.New(sessions.Config{
		Self: a.self, Flows: a.mesh, Resolver: func() sessions.Resolver { return a.dir.Snapshot() }, Media: a.media, Policy: a,
		Behaviour: a.profile.Behaviour, Capability: caps, AutoAnswer: auto, Version: a.opt.Version, Logger: a.log,
		Examine: a.answerDoctor, Speaks: a.speaks, Wake: a.wake, HalfDuplex: halfDuplex(a.profile.Behaviour, source, sink),
	})
	if err != nil {
		return err
	}
	a.restoreDND()
	return a.openEdge()
}

// halfDuplex holds for a device with a microphone and a loudspeaker in one room and nothing
// that cancels the echo between them. A clip hears nothing, a recorder says nothing.
func halfDuplex(b profiles.Behaviour, source media.SourceSpec, sink media.SinkSpec) bool {
	return b.HalfDuplex && source.Pipeline != nil && source.Pipeline.Audio != nil && sink.Pipeline != nil
}

// run starts everything in two circles: what calls need, and the calls themselves, which
// end first.
func (a *Agent) run(ctx context.Context) error {
	inner, stopInner := context.WithCancel(ctx)
	defer stopInner()
	outer, stopOuter := context.WithCancel(context.WithoutCancel(ctx))
	defer stopOuter()
	ln, err := api.Listen(a.cfg.Socket())
	if err != nil {
		return err
	}
	a.dir.SetRoster(a.roster.Roster())
	base, bctx := errgroup.WithContext(outer)
	start := func(f func(context.Context) error) { base.Go(func() error { return f(bctx) }) }
	start(a.dir.Run)
	start(a.monitor.Run)
	start(a.mesh.Run)
	start(a.discover)
	start(a.followRoster)
	start(a.followRecords)
	start(a.followLive)
	start(a.keepOwnRecord)
	start(a.keepCameras)
	start(a.followAddresses)
	start(a.reviewRoster)
	start(a.tryEncoders)
	start(a.keepWebCert)
	start(thrift)
	calls, cctx := errgroup.WithContext(inner)
	context.AfterFunc(bctx, stopInner)
	calls.Go(func() error { return a.sip.Run(cctx) })
	calls.Go(func() error { return api.Serve(cctx, ln, a.routes, a.log) })
	calls.Go(func() error { return a.serveWeb(cctx) })
	calls.Go(func() error { return a.followCalls(cctx) })
	calls.Go(func() error { a.forgetPhones(); return nil })
	calls.Go(func() error { return a.finishJoining(cctx) })
	calls.Go(func() error { return a.endCandidate(cctx) })
	if a.opt.Ready != nil {
		a.opt.Ready(a.cfg.Socket())
	}
	err = calls.Wait()
	stopOuter()
	return errors.Join(err, base.Wait())
}

func (a *Agent) followRoster(ctx context.Context) error {
	changed := a.roster.Watch(ctx)
	for {
		a.dir.SetRoster(a.roster.Roster())
		a.listForeign()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (a *Agent) followRecords(ctx context.Context) error {
	for ctx.Err() == nil {
		feed := a.mesh.WatchRecords(ctx)
		for _, r := range a.mesh.Records() {
			a.takeRecord(r)
		}
		for r := range feed {
			a.takeRecord(r)
		}
	}
	return nil
}

func (a *Agent) takeRecord(r records.Record) {
	if r.Kind == records.KindForeign {
		a.takeForeign(r)
		return
	}
	if r.Kind == records.KindBinding {
		a.takeBindings()
		return
	}
	if r.Kind != records.KindDevice || r.Gone() {
		return
	}
	d, err := records.DecodeDevice(r)
	if err != nil {
		a.log.Warn("a device's record cannot be read", "device", r.Writer, "err", err)
		return
	}
	a.dir.SetRecord(r.Writer, d)
}

func (a *Agent) followLive(ctx context.Context) error {
	changed := a.mesh.WatchLive(ctx)
	for {
		a.dir.SetLive(a.mesh.Live())
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// restAfter: this long after a call ended or a device came or went, memory goes back to the system.
const restAfter = 2 * time.Second

func (a *Agent) followCalls(ctx context.Context) error {
	calls, live := a.sip.Watch(ctx), a.mesh.WatchLive(ctx)
	rest := time.NewTimer(restAfter) // a start leaves garbage too, and so do comers
	defer rest.Stop()
	for {
		select {
		case c, ok := <-calls:
			if !ok {
				return nil
			}
			a.publish(api.Event{Kind: "call", Call: &c})
			a.recordChanged() // it may be busy now, or free
			rest.Reset(restAfter)
		case <-live:
			rest.Reset(restAfter)
		case <-rest.C:
			if !slices.ContainsFunc(a.sip.Calls(), func(c sessions.CallInfo) bool { return c.State != sessions.StateEnded }) {
				giveBack()
			}
		}
	}
}

// home returns the roster, or says that there is none.
func (a *Agent) home() (*devices.Roster, error) {
	r := a.roster.Roster()
	if r == nil {
		return nil, trust.ErrNoHome
	}
	if !r.Has(a.self) {
		return nil, fmt.Errorf("%w; start it with an empty data folder to join again", trust.ErrRemoved)
	}
	return r, nil
}
