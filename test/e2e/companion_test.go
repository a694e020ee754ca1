package e2e

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

type phoneWindow struct {
	State string `json:"state"`
	URL   string `json:"url"`
	Code  string `json:"code"`
	Phone string `json:"phone"`
	Words string `json:"words"`
	Slug  string `json:"slug"`
}

type trust struct {
	URL   string `json:"url"`
	Words string `json:"words"`
	Ready bool   `json:"ready"`
}

// companionHome is a home of two owners and a device, each serving the companion.
func companionHome(t *testing.T) (kitchen, hall, cam *node, phone *netlab.Host) {
	t.Helper()
	l := newLab(t)
	kitchen = newNode(t, l, "stove", "panel", "Kitchen").start().found()
	hall = newNode(t, l, "wall", "panel", "Hall")
	cam = newNode(t, l, "cam", "camera", "Garden")
	kitchen.invite(hall, cam)
	kitchen.run("home", "role", "wall", "owner")
	_, _, _ = kitchen.origin(), hall.origin(), cam.origin() // all can serve the app
	return kitchen, hall, cam, l.MustHost(t, "phone")
}

// caOf downloads the authority's certificate by a node's address, as a phone does that does not
// trust it yet.
func caOf(t testing.TB, n *node) []byte {
	t.Helper()
	out, err := n.host.Command(t.Context(), "curl", "-sk", "https://"+net.JoinHostPort(n.host.IPv4, "8443")+"/trust/hallway.crt").Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestA7_APhoneBecomesOwnerAndOutlivesItsNode walks the whole way with real Chromium: trust, QR,
// confirmation, login; another node under the same origin; the loss of the phone.
func TestA7_APhoneBecomesOwnerAndOutlivesItsNode(t *testing.T) {
	kitchen, hall, cam, phoneHost := companionHome(t)
	words := ask[trust](kitchen, "home", "trust").Words
	for _, n := range []*node{hall, cam} {
		if got := ask[trust](n, "home", "trust").Words; got != words {
			t.Fatalf("%s shows the words %s, the kitchen %s", n.name, got, words)
		}
	}
	origin := kitchen.origin()

	stranger := newBrowser(t, phoneHost, kitchen.appHost(), cam.host.IPv4, nil)
	if _, err := stranger.open(origin + "/"); err == nil || !strings.Contains(err.Error(), "ERR_CERT_AUTHORITY_INVALID") {
		t.Fatalf("a browser that does not trust the home opened it: %v", err)
	}

	// The phone comes to the camera's node, which is no owner; the kitchen has the window.
	cam.takeName(nil, phoneHost)
	phone := kitchen.browserOn(phoneHost, virtual)
	w := ask[phoneWindow](kitchen, "phone", "--name", "Anna", "--no-wait")
	if !strings.HasPrefix(w.URL, origin+"/#pair=") {
		t.Fatalf("the QR code says %s", w.URL)
	}
	if status, err := phone.open(w.URL); err != nil || status != http.StatusOK {
		t.Fatalf("%d %v", status, err)
	}
	var first struct{ State, Words string }
	// The app, if it was built, has read the secret first, and taken it out of the address.
	_, secret, _ := strings.Cut(w.URL, "#pair=")
	phone.eval(`globalThis.secret = hallway.secretOfURL() ?? "`+secret+`"; return hallway.pair(secret, "Anna's phone")`, &first)
	waiting := ask[phoneWindow](kitchen, "phone", "show")
	if first.State != "waiting" || waiting.State != "waiting" || waiting.Words != first.Words || waiting.Phone != "Anna's phone" {
		t.Fatalf("the phone says %+v, the kitchen %+v", first, waiting)
	}
	if err := phone.try(`return hallway.login()`, nil); err == nil {
		t.Fatal("a phone that nobody confirmed logged in")
	}
	kitchen.run("phone", "accept")
	phone.eval(`return hallway.pair(secret, "Anna's phone")`, &first)
	if first.State != "paired" {
		t.Fatalf("after the confirmation: %+v", first)
	}
	var who struct{ Name, Role string }
	kitchen.eventually(5*time.Second, "the camera's node knows the phone", func() bool { return phone.try(`return hallway.login()`, &who) == nil })
	if who.Name != "Anna" || who.Role != "owner" {
		t.Fatalf("%+v", who)
	}
	var key string
	phone.eval(`const k = await hallway.key(); return k.privateKey.extractable + " " + await crypto.subtle.exportKey("pkcs8", k.privateKey).catch(e => e.name)`, &key)
	if key != "false InvalidAccessError" {
		t.Errorf("the key can be taken out: %s", key)
	}
	if got := slugs(t, phone); !strings.Contains(got, "stove") || !strings.Contains(got, "wall") {
		t.Errorf("the phone sees %s", got)
	}
	phone.eval(`globalThis.seen = []; globalThis.up = null; globalThis.downs = 0; hallway.events(e => seen.push(e), c => { up = c; if (!c) downs++ }); return null`, nil)
	kitchen.eventually(5*time.Second, "the event stream stands", func() bool { var up bool; phone.eval(`return up === true`, &up); return up })

	// The node that had the window dies, and the one that serves this page as well: the same page, with
	// the same key, goes on through the third, untouched.
	kitchen.kill()
	began := time.Now()
	cam.kill()
	hall.takeName(cam, phoneHost)
	hall.eventually(10*time.Second, "the page logs in through another node", func() bool {
		var name string
		return phone.try(`return (await hallway.call("GET", "/status")).name`, &name) == nil && name == "wall"
	})
	hall.eventually(10*time.Second, "its event stream stands again", func() bool { var up bool; phone.eval(`return up === true`, &up); return up })
	t.Logf("the page works through another node %v after its own died", time.Since(began))
	cam.start()
	hall.eventually(15*time.Second, "the camera is back", func() bool { return hall.sees("cam") == "reachable" })
	phone.eval(`globalThis.before = downs; return null`, nil)
	cam.takeName(hall, phoneHost)
	hall.eventually(15*time.Second, "the page is on the camera's node again", func() bool {
		var name string
		return phone.try(`return (await hallway.call("GET", "/status")).name`, &name) == nil && name == "cam"
	})
	hall.eventually(20*time.Second, "with its stream, whose silence it noticed", func() bool {
		var on bool
		phone.eval(`return up === true && downs > before`, &on)
		return on
	})

	// A lost phone: another owner removes it; stream and session end on a node that is no owner.
	began = time.Now()
	hall.run("home", "remove", "annas-phone")
	hall.eventually(10*time.Second, "the stream of the removed phone has ended", func() bool { var up bool; phone.eval(`return up === true`, &up); return !up })
	t.Logf("stream ended %v after the removal", time.Since(began))
	if err := phone.try(`return hallway.call("GET", "/devices")`, nil); err == nil || !strings.Contains(err.Error(), "removed") {
		t.Errorf("the removed phone still reads: %v", err)
	}
}

// virtual is the address to which the home's name leads the browser; it moves from node to node as
// the answers of mDNS would.
const virtual = "10.77.0.250"

// takeName makes the home's name lead to this node.
func (n *node) takeName(from *node, phone *netlab.Host) {
	n.t.Helper()
	if from != nil {
		_ = from.host.Command(n.t.Context(), "ip", "addr", "del", virtual+"/32", "dev", "lo").Run() // it may be gone with its host
	}
	for _, c := range [][]string{{"ip", "addr", "add", virtual + "/32", "dev", "lo"}} {
		if out, err := n.host.Command(n.t.Context(), c[0], c[1:]...).CombinedOutput(); err != nil {
			n.t.Fatalf("%v: %s", err, out)
		}
	}
	_ = phone.Command(n.t.Context(), "ip", "neigh", "flush", "all").Run()
}

func slugs(t *testing.T, b *browser) string {
	t.Helper()
	var d struct{ Devices []device }
	var raw json.RawMessage
	b.eval(`return hallway.call("GET", "/devices")`, &raw)
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, x := range d.Devices {
		out = append(out, x.Slug)
	}
	return strings.Join(out, " ")
}
