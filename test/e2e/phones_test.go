package e2e

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	drive "github.com/hallway-home/hallway/test/browser"
	"github.com/hallway-home/hallway/test/netlab"
)

// watchCapture keeps what a page opens from now on: how often it asked for camera or microphone, the
// tracks it got, its peer connections; and tells times in milliseconds since 1970, as Go does.
const watchCapture = `{ globalThis.watch = { asked: 0, tracks: [], pcs: [], taps: 0 }
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices)
navigator.mediaDevices.getUserMedia = async (c) => { watch.asked++; const s = await open(c); watch.tracks.push(...s.getTracks()); return s }
const Connection = RTCPeerConnection
globalThis.RTCPeerConnection = class extends Connection { constructor(...a) { super(...a); watch.pcs.push(this) } }
addEventListener("click", (e) => { if (e.isTrusted) watch.taps++ }, true)
const until = async (limit, f) => {
  for (const end = performance.now() + limit; performance.now() < end; await new Promise((done) => setTimeout(done, 10))) if (await f()) return Date.now()
  return 0
}
watch.sees = (limit) => until(limit, async () => {
  let frames = 0, energy = 0
  for (const pc of watch.pcs.filter((x) => x.connectionState === "connected")) for (const r of (await pc.getStats()).values()) {
    if (r.type === "inbound-rtp" && r.kind === "video") frames += r.framesDecoded
    if (r.type === "inbound-rtp" && r.kind === "audio") energy += r.totalAudioEnergy
  }
  return frames > 0 && energy > 0
})
watch.free = (limit) => until(limit, () => watch.tracks.length > 0 && watch.tracks.every((t) => t.readyState === "ended"))
watch.begin = (f) => { watch.later = f } }`

// capturing is what a page has open, and how often it asked to open something.
type capturing struct{ Asked, Live, Taps int }

func (b *browser) capturing() (c capturing) {
	b.t.Helper()
	b.run(`return { asked: watch.asked, taps: watch.taps, live: watch.tracks.filter((t) => t.readyState === "live").length }`, &c)
	return c
}

// begin starts something in the page that finished later gives the time of; the page and
// this process have one clock.
func (b *browser) begin(what string) { b.t.Helper(); b.run(`watch.begin(`+what+`)`, nil) }

func (b *browser) finished(what string) time.Time {
	b.t.Helper()
	var ms int64
	if b.run(`return watch.later`, &ms); ms == 0 {
		b.t.Fatalf("the page: did not happen: %s", what)
	}
	return time.UnixMilli(ms)
}

// origin is the app's, the same at every node, once this node can serve it.
func (n *node) origin() string {
	n.t.Helper()
	n.eventually(20*time.Second, "it has a certificate for the companion", func() bool { return ask[trust](n, "home", "trust").Ready })
	return strings.TrimSuffix(ask[trust](n, "home", "trust").URL, "/")
}

// appHost is the name in the origin.
func (n *node) appHost() string {
	n.t.Helper()
	return strings.TrimSuffix(strings.TrimPrefix(n.origin(), "https://"), ":8443")
}

// autoplay lets a page be heard before anybody touched it.
const autoplay = "--autoplay-policy=no-user-gesture-required"

// browserOn starts a browser on a host, with a camera and a microphone, that trusts the home. The
// app's name leads it to the address at.
func (n *node) browserOn(h *netlab.Host, at string, args ...string) *browser {
	n.t.Helper()
	return newBrowser(n.t, h, n.appHost(), at, caOf(n.t, n), append(drive.Media(), args...)...)
}

// pairs makes a browser a phone with a name of its own, as the QR code leads it; window says whose
// phone it is, to `hallway phone` at an owner's node.
func (b *browser) pairs(owner *node, name string, window ...string) {
	b.t.Helper()
	w := ask[phoneWindow](owner, append([]string{"phone", "--no-wait"}, window...)...)
	if status, err := b.open(w.URL); err != nil || status != http.StatusOK {
		b.t.Fatalf("%d %v", status, err)
	}
	b.named(name)
	b.letIn(owner)
}

// typed makes a browser that is at the app's door a phone by a code.
func (b *browser) typed(code, name string) {
	b.t.Helper()
	b.fill("input[name=code]", code)
	b.click(button("Next"))
	b.named(name)
}

// named says what the phone is called, and that it may be paired.
func (b *browser) named(name string) {
	b.t.Helper()
	b.fill("input[name=name]", name)
	b.click(button("Pair"))
}

// letIn compares the words at an owner's node, and waits for the house.
func (b *browser) letIn(owner *node) {
	b.t.Helper()
	b.wait(".words")
	owner.run("phone", "accept")
	b.wait("role=heading[name=House]")
}

// person pairs a browser on a host as the phone of somebody new; what it captures is watched.
func (n *node) person(h *netlab.Host, name, role, at string, args ...string) *browser {
	n.t.Helper()
	b := n.browserOn(h, at, append([]string{autoplay}, args...)...)
	_, err := b.command(map[string]any{"do": "before", "js": watchCapture})
	must(n.t, err)
	b.pairs(n, name+"s phone", "--name", name, "--role", role)
	return b
}

// answered accepts at the agent's own socket, without a process of its own, and says when.
func (n *node) answered(id string) time.Time {
	n.t.Helper()
	start := time.Now()
	req := func(ctx context.Context) (int, error) {
		return n.direct(ctx, http.MethodPost, "/calls/"+id+"/answer", nil)
	}
	if status, err := req(n.t.Context()); err != nil || status/100 != 2 {
		n.t.Fatalf("%s: answer: %d %v", n.name, status, err)
	}
	return start
}

// media waits until a call receives sound and picture, and says when.
func (n *node) media(id string, within time.Duration) time.Time {
	n.t.Helper()
	var c call
	for end := time.Now().Add(within); ; time.Sleep(5 * time.Millisecond) {
		if status, err := n.direct(n.t.Context(), http.MethodGet, "/calls/"+id, &c); err != nil || status != http.StatusOK {
			n.t.Fatalf("%s: the call: %d %v", n.name, status, err)
		}
		if c.Stats.Audio.Received > 0 && c.Stats.Video.Received > 0 {
			return time.Now()
		}
		if time.Now().After(end) {
			n.t.Fatalf("%s: sound and picture do not both arrive within %v: %+v", n.name, within, c)
		}
	}
}

// activity is what the Activity screen of the page's node shows.
func (b *browser) activity(t *testing.T) string {
	t.Helper()
	b.screen("Activity")
	var shown string
	b.run(`return document.querySelector("main").innerText`, &shown)
	return shown
}
