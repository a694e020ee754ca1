package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/profiles"
	"github.com/hallway-home/hallway/sessions"
	"github.com/hallway-home/hallway/sessions/media"
	"github.com/hallway-home/hallway/sessions/media/rtsp"
)

const (
	// bucketCameras holds the cameras' addresses with their passwords. The store's file can
	// be read by its owner alone, and nothing of it leaves this node.
	bucketCameras = "cameras"
	// maxCameras that one node speaks for: each has one of its 32 records.
	maxCameras = 24
	// lookAtCameras: how often it is tried whether a camera answers. It costs one TCP
	// handshake and opens nothing.
	lookAtCameras = 30 * time.Second
	// knock bounds that handshake; a camera on the LAN answers in milliseconds.
	knock = 2 * time.Second
	// unadopted: an address whose adoption did not come about is forgotten after this.
	unadopted = 10 * time.Minute
)

// cameras are the RTSP cameras that this node can open, by their address without user name
// and password: that is what the roster knows them by.
type cameras struct {
	mu    sync.Mutex
	known map[string]*camera
	kick  chan struct{} // holds a signal to look now

	once sync.Once // behaviour is read from the profile once: calls are looked at every moment
	of   profiles.Behaviour
}

// camera is what the store keeps of one, and its place in the running agent.
type camera struct {
	URL    string           `json:"url"` // with user name and password
	Tracks []sessions.Track `json:"tracks"`
	// Certificate is its fingerprint, where it has TLS: what it had when an owner adopted it.
	Certificate string `json:"certificate,omitempty"`

	box   *media.Box
	since time.Time // learnt in this run; zero: before
}

// openCameras reads the store.
func (a *Agent) openCameras() error {
	a.cameras = cameras{known: map[string]*camera{}, kick: make(chan struct{}, 1)}
	return a.store.View(func(tx devices.Tx) error {
		return tx.Each(bucketCameras, func(public string, val []byte) error {
			c := &camera{}
			if err := json.Unmarshal(val, c); err != nil {
				a.log.Error("what the store says of a camera cannot be read; adopt it again", "camera", public)
				return nil //nolint:nilerr // the others are fine
			}
			a.cameras.known[public] = a.boxed(public, c)
			return nil
		})
	})
}

// boxed gives a camera the box through which all its viewers share one connection.
func (a *Agent) boxed(public string, c *camera) *camera {
	source := media.SourceSpec{Live: &rtsp.Camera{URL: c.URL, Tracks: c.Tracks, Certificate: c.Certificate, Encoders: a.encoders, Changed: func(tracks []sessions.Track) {
		a.log.Info("a camera changed how it encodes", "camera", public)
		if err := a.keepCamera(public, &camera{URL: c.URL, Tracks: tracks, Certificate: c.Certificate}); err != nil {
			a.log.Error("cannot keep what a camera sends", "camera", public, "err", err)
		}
	}}}
	c.box = media.NewBox(source, media.SinkSpec{}, a.log)
	return c
}

// keepCamera stores what is needed to open a camera.
func (a *Agent) keepCamera(public string, c *camera) error {
	val, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := a.store.Update("camera", func(tx devices.Tx) error { return tx.Put(bucketCameras, public, val) }); err != nil {
		return err
	}
	c.since = time.Now()
	a.cameras.mu.Lock()
	a.cameras.known[public] = a.boxed(public, c)
	a.cameras.mu.Unlock()
	a.lookNow()
	return nil
}

func (a *Agent) lookNow() {
	select {
	case a.cameras.kick <- struct{}{}:
	default:
	}
}

// learnCamera tries an address and keeps it. The error is a sentence for the owner.
func (a *Agent) learnCamera(ctx context.Context, address string) (rtsp.Description, error) {
	public, err := rtsp.PublicURL(address)
	if err != nil {
		return rtsp.Description{}, err
	}
	a.cameras.mu.Lock()
	_, known := a.cameras.known[public]
	n := len(a.cameras.known)
	a.cameras.mu.Unlock()
	if !known && n >= maxCameras {
		return rtsp.Description{}, fmt.Errorf("this device speaks for %d cameras already; let another one speak for it with --via", n)
	}
	d, err := rtsp.Describe(ctx, address, a.encoders)
	if err != nil {
		return d, err
	}
	return d, a.keepCamera(public, &camera{URL: address, Tracks: d.Tracks, Certificate: d.Certificate})
}

func (a *Agent) cameraAt(public string) (camera, bool) {
	a.cameras.mu.Lock()
	defer a.cameras.mu.Unlock()
	c, ok := a.cameras.known[public]
	if !ok {
		return camera{}, false
	}
	return *c, true
}

// speaks implements sessions.Config.Speaks: the cameras that the home lets this node speak
// for, and that it can open.
func (a *Agent) speaks(slug string) (sessions.Spoken, bool) {
	r := a.roster.Roster()
	if !r.Has(a.self) {
		return sessions.Spoken{}, false
	}
	ad, ok := r.Adopted[slug]
	if !ok || !slices.Contains(ad.Speakers, a.self) {
		return sessions.Spoken{}, false
	}
	c, ok := a.cameraAt(ad.URI)
	if !ok {
		return sessions.Spoken{}, false
	}
	return sessions.Spoken{Capability: rtsp.Capabilities(c.Tracks), Behaviour: a.cameras.behaviour(), Endpoint: c.box}, true
}

// behaviour is that of every camera.
func (c *cameras) behaviour() profiles.Behaviour {
	c.once.Do(func() {
		c.of = profiles.Behaviour{AutoAnswer: true, Automata: true, MaxCalls: 1}
		if p, err := profiles.ForClass(string(devices.ClassCamera)); err == nil {
			c.of = p.Behaviour
		}
	})
	return c.of
}

// keepCameras tells the home what this node's cameras can do and whether they answer, and
// forgets those that are not the home's any more.
func (a *Agent) keepCameras(ctx context.Context) error {
	changed := a.roster.Watch(ctx)
	tick := time.NewTicker(lookAtCameras)
	defer tick.Stop()
	said := map[string]devices.ForeignRecord{}
	for _, r := range a.mesh.Records() { // a restart says nothing new
		if r.Writer == a.self && r.Kind == records.KindForeign && !r.Gone() {
			if rec, err := records.DecodeForeign(r); err == nil {
				said[r.Subject] = rec
			}
		}
	}
	for {
		a.lookAtCameras(ctx, said)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-a.cameras.kick:
		case <-tick.C:
		}
	}
}

func (a *Agent) lookAtCameras(ctx context.Context, said map[string]devices.ForeignRecord) {
	r := a.roster.Roster()
	mine := map[string]devices.Adopted{}
	if r.Has(a.self) {
		for slug, ad := range r.Adopted {
			if slices.Contains(ad.Speakers, a.self) {
				mine[slug] = ad
			}
		}
	}
	a.forgetCameras(mine, said)
	found := make(chan struct {
		slug string
		rec  devices.ForeignRecord
	}, len(mine))
	var wg sync.WaitGroup
	for slug, ad := range mine {
		wg.Go(func() {
			found <- struct {
				slug string
				rec  devices.ForeignRecord
			}{slug, a.lookAt(ctx, ad)}
		})
	}
	wg.Wait()
	close(found)
	for f := range found {
		if old, ok := said[f.slug]; ctx.Err() != nil || ok && sameForeign(old, f.rec) {
			continue
		}
		if err := a.mesh.Write(records.Statement{Subject: f.slug, Kind: records.KindForeign, Body: f.rec}); err != nil {
			a.log.Error("cannot tell the home about a camera", "camera", f.slug, "err", err)
			continue
		}
		said[f.slug] = f.rec
		if f.rec.Fault != "" {
			a.log.Warn("a camera does not answer", "camera", f.slug, "why", f.rec.Fault)
		}
	}
}

func sameForeign(a, b devices.ForeignRecord) bool {
	return a.Fault == b.Fault && a.Behaviour == b.Behaviour && fmt.Sprint(a.Capabilities) == fmt.Sprint(b.Capabilities)
}

// forgetCameras drops passwords that are of no use any more.
func (a *Agent) forgetCameras(mine map[string]devices.Adopted, said map[string]devices.ForeignRecord) {
	needed := map[string]bool{}
	for _, ad := range mine {
		needed[ad.URI] = true
	}
	a.cameras.mu.Lock()
	var gone []string
	for public, c := range a.cameras.known {
		if !needed[public] && time.Since(c.since) > unadopted {
			delete(a.cameras.known, public)
			gone = append(gone, public)
		}
	}
	a.cameras.mu.Unlock()
	for _, public := range gone {
		if err := a.store.Update("camera", func(tx devices.Tx) error { return tx.Delete(bucketCameras, public) }); err != nil {
			a.log.Error("cannot forget a camera's password", "camera", public, "err", err)
		}
	}
	maps.DeleteFunc(said, func(slug string, _ devices.ForeignRecord) bool { // the overlay drops the record
		_, ok := mine[slug]
		return !ok
	})
}

// lookAt finds out what is to be said of one camera.
func (a *Agent) lookAt(ctx context.Context, ad devices.Adopted) devices.ForeignRecord {
	b := a.cameras.behaviour()
	rec := devices.ForeignRecord{Behaviour: devices.RecordBehaviour{Automata: b.Automata, Mobility: b.Mobility, Duplex: b.Duplex}}
	c, ok := a.cameraAt(ad.URI)
	if !ok { // adopted elsewhere for this node to speak for, too: without a password it may do
		d, err := a.learnCamera(ctx, ad.URI)
		if err != nil {
			rec.Capabilities = rtsp.Capabilities(nil)
			rec.Fault = err.Error()
			return rec
		}
		c.Tracks = d.Tracks
	}
	rec.Capabilities = rtsp.Capabilities(c.Tracks)
	if c.box != nil && c.box.InUse() { // some cameras have one connection to give
		return rec
	}
	if err := a.knock(ctx, ad.URI); err != nil {
		rec.Fault = "nothing answers at its address; is it on, and connected?"
	}
	return rec
}

// knock tries whether something listens at a camera's address.
func (a *Agent) knock(ctx context.Context, public string) error {
	u, err := url.Parse(public)
	if err != nil {
		return err
	}
	port := u.Port()
	if port == "" {
		if port = "554"; u.Scheme == "rtsps" {
			port = "322"
		}
	}
	ctx, cancel := context.WithTimeout(ctx, knock)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return err
	}
	return conn.Close()
}

// takeForeign takes what a speaker says of a foreign device; the overlay has checked that it
// may.
func (a *Agent) takeForeign(r records.Record) {
	if r.Gone() {
		a.dir.SetSpoken(r.Subject, r.Writer, nil)
		return
	}
	rec, err := records.DecodeForeign(r)
	if err != nil {
		a.log.Warn("what a device says of a foreign one cannot be read", "device", r.Writer, "about", r.Subject, "err", err)
		return
	}
	rec.Fault = shown(rec.Fault)
	a.dir.SetSpoken(r.Subject, r.Writer, &rec)
}
