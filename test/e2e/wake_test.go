package e2e

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

// pushService is one on a host of its own, with what it was sent.
type pushService struct {
	t       testing.TB
	host    *netlab.Host
	program string
	ca      string // file
	flags   []string
	cancel  context.CancelFunc
	done    chan struct{}

	mu  sync.Mutex
	got []pushed
}

type pushed struct {
	Path, From, Key, Fault string
	Body                   int
}

func newPushService(t testing.TB, h *netlab.Host) *pushService {
	t.Helper()
	dir := t.TempDir()
	s := &pushService{t: t, host: h, program: filepath.Join(dir, "pushservice"), ca: filepath.Join(dir, "cert.pem")}
	if out, err := exec.Command("go", "build", "-o", s.program, "./pushservice").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(h.IPv4)}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	keyFile := filepath.Join(dir, "key.pem")
	must(t, os.WriteFile(s.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	s.flags = []string{"-cert", s.ca, "-key", keyFile}
	t.Cleanup(func() { s.stop() })
	s.start()
	return s
}

func (s *pushService) start(more ...string) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := s.host.Command(ctx, s.program, append(s.flags, more...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(s.t, err)
	must(s.t, cmd.Start())
	s.cancel, s.done = cancel, make(chan struct{})
	go func() {
		defer close(s.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var p pushed
			if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
				p.Fault = err.Error()
			}
			s.mu.Lock()
			s.got = append(s.got, p)
			s.mu.Unlock()
		}
		_ = cmd.Wait() // it was killed
	}()
}

func (s *pushService) stop() {
	s.cancel()
	<-s.done
}

func (s *pushService) pushes() []pushed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]pushed(nil), s.got...)
}

// subscribes is a PushManager whose service is ours: Chromium's own is on the Internet. All else is the browser's.
const subscribes = `
const made = () => { const o = JSON.parse(localStorage.getItem('test-push')); return o && { endpoint: o.endpoint, unsubscribe: async () => { localStorage.removeItem('test-push'); return true } } }
PushManager.prototype.getSubscription = async () => made()
PushManager.prototype.subscribe = async (o) => {
  if (!o.userVisibleOnly) throw new Error('userVisibleOnly')
  const key = btoa(String.fromCharCode(...new Uint8Array(o.applicationServerKey))).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
  localStorage.setItem('test-push', JSON.stringify({ endpoint: '%s/send/annas-phone', key }))
  return made()
}`

// notices are what the phone shows of calls while no page is looked at.
func (b *browser) notices() (out []string) {
	b.t.Helper()
	raw, err := b.command(map[string]any{"do": "worker", "js": "return (await registration.getNotifications()).map((n) => n.body)"})
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// notified waits until the phone shows that somebody calls.
func (b *browser) notified() {
	b.t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		n := b.notices()
		if len(n) == 1 && n[0] == "Somebody calls. Tap to see who." {
			return
		}
		if time.Now().After(end) {
			sees, err := b.command(map[string]any{"do": "worker", "js": "return [Notification.permission, ...(await clients.matchAll({ includeUncontrolled: true })).map((c) => c.url + ' ' + c.visibilityState)]"})
			b.t.Fatalf("the phone shows %q; its service worker knows %s (%v)", n, sees, err)
		}
	}
}

// delivered is a push as the browser's own service would hand it over.
func (b *browser) delivered() {
	b.t.Helper()
	if _, err := b.command(map[string]any{"do": "push"}); err != nil {
		b.t.Fatal(err)
	}
}

// TestAClosedPageIsWoken: a phone whose page is closed is told of a call by its browser's push service, if its person
// wanted that; the caller waits, and the call rings once the page is open. Nothing is sent otherwise.
func TestAClosedPageIsWoken(t *testing.T) {
	withApp(t)
	l := newLab(t)
	service := newPushService(t, l.MustHost(t, "Internet"))
	conf := func(text string) string {
		file := filepath.Join(t.TempDir(), "hallway.yaml")
		must(t, os.WriteFile(file, []byte(text), 0o600))
		return file
	}
	// The kitchen may not talk to the service; the hall does it for it.
	kitchen := newNode(t, l, "Stove", "panel", "Kitchen", "--source-clip", clip(t, 440), "--sink-record", t.TempDir(), "--config", conf("push: []\n")).start().found()
	hall := newNode(t, l, "Mirror", "panel", "Hall", "--config", conf(fmt.Sprintf("push: ['%s']\n", service.host.IPv4)))
	hall.command = []string{"env", "SSL_CERT_FILE=" + service.ca, binary}
	kitchen.invite(hall)
	page, _, origin := pairedPage(t, l, kitchen, "--role", "member")
	for _, c := range []map[string]any{{"do": "permit"}, {"do": "before", "js": fmt.Sprintf(subscribes, "https://"+service.host.IPv4)}} {
		if _, err := page.command(c); err != nil {
			t.Fatal(err)
		}
	}
	open := func(url string) {
		t.Helper()
		if _, err := page.open(url); err != nil {
			t.Fatal(err)
		}
	}
	wakesBy := func() string {
		for _, p := range ask[struct {
			Persons []struct {
				Slug    string
				WakesBy []string `json:"wakes_by"`
			}
		}](hall, "rooms").Persons {
			if p.Slug == "anna" && len(p.WakesBy) > 0 {
				return p.WakesBy[0]
			}
		}
		return ""
	}
	open(origin + "/settings")
	page.wait("input[name=wake]:not(:checked)")
	if wakesBy() != "" {
		t.Error("a phone is woken that was not asked")
	}
	page.click("input[name=wake]")
	page.wait("input[name=wake]:checked")
	hall.eventually(5*time.Second, "the home knows how to wake the phone", func() bool { return wakesBy() == service.host.IPv4 })
	page.draw("settings")
	var wanted struct{ Key string }
	page.run(`return JSON.parse(localStorage.getItem('test-push'))`, &wanted)

	// An open page needs no waking, and shows no notice of a push.
	page.delivered()
	time.Sleep(500 * time.Millisecond) // for what must not come
	if n := page.notices(); len(n) != 0 {
		t.Errorf("somebody who looks at the app is shown %q", n)
	}

	open("about:blank")
	hall.shows("anna", "away", 10*time.Second)
	began := time.Now()
	c := ask[call](kitchen, "call", "anna", "--detach")
	hall.eventually(5*time.Second, "the push service is told", func() bool { return len(service.pushes()) == 1 })
	t.Logf("the push service is told after %v", time.Since(began).Round(time.Millisecond))
	if p := service.pushes()[0]; p.Fault != "" || p.Path != "/send/annas-phone" || p.Key != wanted.Key || p.Body != 0 || hostOf(p.From) != hall.host.IPv4 {
		t.Errorf("the push was %+v, for a subscription under %s", p, wanted.Key)
	}
	page.delivered()
	page.notified()
	if s := kitchen.call(c.ID); s.State != "calling" {
		t.Errorf("meanwhile the call is %+v", s)
	}
	tapped := time.Now()
	open(origin + "/") // what a tap on the notice does; a test cannot tap there
	page.wait("dialog >> text=Stove is calling")
	t.Logf("it rings %v after the tap", time.Since(tapped).Round(time.Millisecond))
	page.soon(5*time.Second, "the notice goes: the call is on the screen", func() bool { return len(page.notices()) == 0 })
	page.click(button("Accept with picture"))
	page.wait("text=In a call with Stove")
	kitchen.eventually(10*time.Second, "it sees and hears the phone", flows(kitchen, c.ID))
	page.click(button("Hang up"))
	kitchen.eventually(5*time.Second, "the end is known", func() bool { return kitchen.call(c.ID).State == "ended" })

	// A page that the phone has put to sleep says nothing, while its browser keeps the connection.
	freeze := func(on bool) {
		t.Helper()
		if _, err := page.command(map[string]any{"do": "freeze", "on": on}); err != nil {
			t.Fatal(err)
		}
	}
	page.click(button("Close"))
	freeze(true)
	hall.shows("anna", "away", 15*time.Second)
	c = ask[call](kitchen, "call", "anna", "--detach")
	hall.eventually(5*time.Second, "the push service is told", func() bool { return len(service.pushes()) == 2 })
	tapped = time.Now()
	freeze(false)
	page.wait("dialog >> text=Stove is calling")
	t.Logf("it rings %v after it was looked at", time.Since(tapped).Round(time.Millisecond))
	page.click(button("Decline"))
	kitchen.eventually(5*time.Second, "the end is known", func() bool { return kitchen.call(c.ID).Reason == "Anna declined the call." })

	// A node that was killed took nothing along; a caller who hangs up waits no longer.
	open("about:blank")
	hall.shows("anna", "away", 10*time.Second)
	kitchen.kill()
	kitchen.start()
	hall.eventually(10*time.Second, "the kitchen is back", func() bool { return hall.sees("stove") == "reachable" })
	time.Sleep(3 * time.Second) // a phone is told once in this time
	c = ask[call](kitchen, "call", "anna", "--detach")
	hall.eventually(5*time.Second, "the push service is told again", func() bool { return len(service.pushes()) == 3 })
	kitchen.run("hangup", c.ID)
	kitchen.eventually(2*time.Second, "the caller is free", func() bool { return kitchen.call(c.ID).State == "ended" })

	// A subscription that has ended costs the caller no patience.
	service.stop()
	service.start("-ended")
	time.Sleep(3 * time.Second)
	began = time.Now()
	if out, code := kitchen.try("call", "anna"); code == 0 || time.Since(began) > 10*time.Second || len(service.pushes()) != 4 {
		t.Errorf("exit %d after %v and %d pushes: %s", code, time.Since(began), len(service.pushes()), out)
	}

	// Turned off, nothing is told any more.
	open(origin + "/settings")
	page.wait("input[name=wake]:checked")
	page.click("input[name=wake]")
	page.wait("input[name=wake]:not(:checked)")
	hall.eventually(5*time.Second, "the home forgets how to wake the phone", func() bool { return wakesBy() == "" })
	open("about:blank")
	began = time.Now()
	if out, code := kitchen.try("call", "anna"); code == 0 || time.Since(began) > 5*time.Second || len(service.pushes()) != 4 {
		t.Errorf("exit %d after %v and %d pushes: %s", code, time.Since(began), len(service.pushes()), out)
	}
}

func hostOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	return host
}
