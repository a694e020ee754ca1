package web

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/pairing"
	"github.com/hallway-home/hallway/devices/trust"
	"github.com/hallway-home/hallway/devices/trust/webca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend answers what these tests read; whatever else is called panics, which a test that
// walks all routes takes as "let through".
type backend struct {
	api.Backend
	volume atomic.Int32
}

func (b *backend) Status() api.Status           { return api.Status{Name: "TV"} }
func (b *backend) Directory() *devices.Snapshot { return devices.Fold(devices.Inputs{}) }
func (b *backend) SetVolume(n int) (api.Volume, error) {
	b.volume.Store(int32(n))
	return api.Volume{Level: n}, nil
}
func (b *backend) Events(ctx context.Context) <-chan api.Event {
	out := make(chan api.Event)
	go func() { <-ctx.Done(); close(out) }()
	return out
}

// phoneOf is a browser's key with its person.
type phoneOf struct {
	key    *ecdsa.PrivateKey
	id     devices.NodeID
	cookie *http.Cookie
	csrf   string
}

// house is a server on real TLS with one person of each role.
type house struct {
	t       *testing.T
	b       *backend
	s       *Server
	roster  atomic.Pointer[devices.Roster]
	changed chan struct{}
	now     atomic.Int64
	known   atomic.Bool
	addr    string
	host    string // host and port of the origin
	kiosk   string // host and port of the plain one for this device
	client  *http.Client
	people  map[string]*phoneOf
}

var homeID = devices.HomeID{0xaa, 0xbb, 0xcc, 0xdd}

func newHouse(t *testing.T, mounts ...Mount) *house {
	t.Helper()
	h := &house{t: t, b: &backend{}, changed: make(chan struct{}, 1), people: map[string]*phoneOf{}}
	r := &devices.Roster{Home: homeID, Phones: map[devices.NodeID]devices.Phone{}, Lost: map[devices.NodeID]bool{}, Persons: map[string]devices.Person{}}
	for _, role := range []devices.Role{devices.RoleGuest, devices.RoleMember, devices.RoleOwner} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		id, name := devices.NodeIDOf(&key.PublicKey), string(role)
		h.people[name] = &phoneOf{key: key, id: id}
		r.Phones[id] = devices.Phone{Node: id, Slug: name + "s-phone", Person: name}
		r.Persons[name] = devices.Person{Slug: name, Name: name, Role: role, Nodes: []devices.NodeID{id}}
	}
	h.roster.Store(r)
	h.now.Store(time.Now().Unix())
	h.known.Store(true)
	h.serve(mounts)
	return h
}

func (h *house) serve(mounts []Mount) {
	h.t.Helper()
	ca, err := webca.New(homeID)
	if err != nil {
		h.t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		h.t.Fatal(err)
	}
	leaf, err := ca.Leaf(homeID, &key.PublicKey, time.Now())
	if err != nil {
		h.t.Fatal(err)
	}
	cert, err := webca.Certificate(ca.Cert.Raw, leaf, key)
	if err != nil {
		h.t.Fatal(err)
	}
	synced := make(chan struct{})
	close(synced)
	h.s = New(Config{
		Backend: h.b, App: fstest.MapFS{"index.html": {Data: []byte("<p>app")}, "assets/a.js": {Data: []byte("1")}}, Roster: h.roster.Load,
		Changed: func(context.Context) <-chan struct{} { return h.changed }, Synced: synced,
		HomeTime: func() (time.Time, bool) { return time.Unix(h.now.Load(), 0), h.known.Load() },
		Cert:     func() *tls.Certificate { return cert }, CA: func() []byte { return ca.Cert.Raw }, Mounts: mounts,
		Pair: func(_ context.Context, p Phone) (bool, error) {
			if string(p.Proof) != "right" {
				return false, pairing.ErrWrongCode
			}
			return true, nil
		},
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	kiosk, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	h.kiosk = "localhost:" + portOf(kiosk)
	go func() { done <- h.s.Run(ctx, ln, kiosk) }()
	h.addr = ln.Addr().String()
	h.host = homeID.AppHost() + ":" + portOf(ln)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: homeID.AppHost()},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", h.addr)
		},
	}
	h.client = &http.Client{Transport: tr}
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
		tr.CloseIdleConnections()
	})
}

// request makes one as the app's page would; who may be empty.
func (h *house) request(method, path, who string, body any) *http.Request {
	h.t.Helper()
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			h.t.Fatal(err)
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(h.t.Context(), method, "https://"+h.host+path, r)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	if method != http.MethodGet {
		req.Header.Set("Origin", "https://"+h.host)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if p := h.people[who]; p != nil && p.cookie != nil {
		req.AddCookie(p.cookie)
		req.Header.Set("X-CSRF-Token", p.csrf)
	}
	return req
}

func (h *house) do(req *http.Request) (int, string) {
	h.t.Helper()
	res, err := h.client.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

func (h *house) challenge() api.Challenge {
	h.t.Helper()
	status, body := h.do(h.request(http.MethodPost, "/api/v1/session/challenge", "", nil))
	var c api.Challenge
	if err := json.Unmarshal([]byte(body), &c); err != nil || status != http.StatusOK {
		h.t.Fatalf("%d %s", status, body)
	}
	return c
}

// signed is a login's body.
func (h *house) signed(p *phoneOf, host string, c api.Challenge) api.LoginRequest {
	sig, err := trust.SignRaw(p.key, Statement(host, c.Home, c.Challenge))
	if err != nil {
		h.t.Fatal(err)
	}
	return api.LoginRequest{Key: devices.CompressedKey(&p.key.PublicKey), Challenge: c.Challenge, Signature: sig}
}

func (h *house) login(who string) *phoneOf {
	h.t.Helper()
	p := h.people[who]
	res, err := h.client.Do(h.request(http.MethodPost, "/api/v1/session", "", h.signed(p, h.host, h.challenge())))
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var s api.Session
	if err := json.NewDecoder(res.Body).Decode(&s); err != nil || res.StatusCode != http.StatusOK || s.Role != who || s.Person != who {
		h.t.Fatalf("%d %+v %v", res.StatusCode, s, err)
	}
	if len(res.Cookies()) != 1 {
		h.t.Fatalf("cookies: %v", res.Header["Set-Cookie"])
	}
	p.cookie, p.csrf = res.Cookies()[0], s.CSRF
	return p
}

// change replaces the roster, as an edit does.
func (h *house) change(f func(r *devices.Roster)) {
	r := *h.roster.Load()
	phones, persons := map[devices.NodeID]devices.Phone{}, map[string]devices.Person{}
	for k, v := range r.Phones {
		phones[k] = v
	}
	for k, v := range r.Persons {
		persons[k] = v
	}
	r.Phones, r.Persons = phones, persons
	f(&r)
	h.roster.Store(&r)
	h.changed <- struct{}{}
}

func TestLoginByTheKeyAlone(t *testing.T) {
	h := newHouse(t)
	p := h.login("owner")
	if c := p.cookie; c.Name != "__Host-hallway" || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" {
		t.Errorf("the cookie is %+v", c)
	}
	if status, _ := h.do(h.request(http.MethodGet, "/api/v1/status", "owner", nil)); status != http.StatusOK {
		t.Error(status)
	}
	used := h.signed(p, h.host, h.challenge())
	if status, _ := h.do(h.request(http.MethodPost, "/api/v1/session", "", used)); status != http.StatusOK {
		t.Error(status)
	}
	stranger, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	c := h.challenge()
	for name, in := range map[string]api.LoginRequest{
		"a challenge twice":    used,
		"another origin":       h.signed(p, "evil.example:8443", h.challenge()),
		"another challenge":    {Key: used.Key, Challenge: c.Challenge, Signature: used.Signature},
		"a made-up challenge":  h.signed(p, h.host, api.Challenge{Challenge: strings.Repeat("A", 54), Home: homeID}),
		"a key of nobody here": h.signed(&phoneOf{key: stranger}, h.host, h.challenge()),
	} {
		if status, body := h.do(h.request(http.MethodPost, "/api/v1/session", "", in)); status != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	if status, _ := h.do(h.request(http.MethodDelete, "/api/v1/session", "owner", nil)); status/100 != 2 {
		t.Error("logout:", status)
	}
	if status, _ := h.do(h.request(http.MethodGet, "/api/v1/status", "owner", nil)); status != http.StatusUnauthorized {
		t.Error("after the logout:", status)
	}
}

func TestAChallengeGetsOld(t *testing.T) {
	h := newHouse(t)
	c := h.challenge()
	h.s.login.challenges.now = func() time.Time { return time.Now().Add(challengeTime + time.Second) }
	if status, _ := h.do(h.request(http.MethodPost, "/api/v1/session", "", h.signed(h.people["owner"], h.host, c))); status != http.StatusForbidden {
		t.Error(status)
	}
}

func TestGuessingIsSlow(t *testing.T) {
	h := newHouse(t)
	body := api.PairPhoneRequest{Key: devices.CompressedKey(&h.people["owner"].key.PublicKey), Name: "x", Proof: []byte("wrong")}
	for range failures {
		if status, _ := h.do(h.request(http.MethodPost, "/api/v1/phones", "", body)); status != http.StatusForbidden {
			t.Fatal(status)
		}
	}
	if status, b := h.do(h.request(http.MethodPost, "/api/v1/phones", "", body)); status != http.StatusTooManyRequests || !strings.Contains(b, "wait a minute") {
		t.Error(status, b)
	}
}

// stream opens the events of somebody and returns a channel that is closed with it.
func (h *house) stream(who string) <-chan struct{} {
	h.t.Helper()
	res, err := h.client.Do(h.request(http.MethodGet, "/api/v1/events", who, nil))
	if err != nil || res.StatusCode != http.StatusOK {
		h.t.Fatal(res, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}()
	return ended
}

func TestA9_ARemovedPhoneLosesSessionAndStreams(t *testing.T) {
	h := newHouse(t)
	for _, who := range []string{"guest", "member", "owner"} {
		h.login(who)
	}
	guest, member, owner := h.stream("guest"), h.stream("member"), h.stream("owner")
	began := time.Now()
	h.change(func(r *devices.Roster) { delete(r.Phones, h.people["owner"].id) })
	ends(t, owner)
	t.Logf("the stream ended after %v", time.Since(began))
	if status, _ := h.do(h.request(http.MethodGet, "/api/v1/status", "owner", nil)); status != http.StatusUnauthorized {
		t.Error("the removed phone's session:", status)
	}
	h.change(func(r *devices.Roster) {
		p := r.Persons["member"]
		p.Role = devices.RoleGuest
		r.Persons["member"] = p
	})
	ends(t, member)
	h.change(func(r *devices.Roster) {
		p := r.Persons["guest"]
		p.Until = h.now.Load()
		r.Persons["guest"] = p
	})
	ends(t, guest)
	if status, _ := h.do(h.request(http.MethodPost, "/api/v1/session", "", h.signed(h.people["guest"], h.host, h.challenge()))); status != http.StatusForbidden {
		t.Error("a guest after their last day:", status)
	}
}

func ends(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatal("a stream goes on")
	}
}

func TestAGuestNeedsATimeThatIsKnown(t *testing.T) {
	h := newHouse(t)
	h.change(func(r *devices.Roster) {
		p := r.Persons["guest"]
		p.Until = h.now.Load() + 3600
		r.Persons["guest"] = p
	})
	h.login("guest")
	h.known.Store(false)
	if status, _ := h.do(h.request(http.MethodGet, "/api/v1/status", "guest", nil)); status != http.StatusUnauthorized {
		t.Error(status)
	}
}

// TestRolesAndRoutes walks what the router itself lists with everybody who can come, over HTTPS and
// with sessions as phones have them, and compares with what the description (docs/openapi.json) promises.
func TestRolesAndRoutes(t *testing.T) {
	h := newHouse(t)
	var seconds atomic.Int64
	h.s.pace.mu.Lock()
	h.s.pace.now = func() time.Time { return time.Now().Add(time.Duration(seconds.Add(1)) * time.Second) } // nobody asks too often
	h.s.pace.mu.Unlock()
	promised := leastOfDescription(t)
	removed := *h.login("owner") // that phone is lost, and its person has another one
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := devices.NodeIDOf(&key.PublicKey)
	h.people["removed"], h.people["owner"] = &removed, &phoneOf{key: key, id: id}
	h.change(func(r *devices.Roster) {
		delete(r.Phones, removed.id)
		r.Phones[id] = devices.Phone{Node: id, Slug: "another-phone", Person: "owner"}
	})
	for _, who := range []string{"guest", "member", "owner"} {
		h.login(who)
	}

	_, description := api.NewHandler(h.b, h.s.login, "test")
	has := map[string]api.Access{"nobody": api.AsNobody, "removed": api.AsNobody, "guest": api.AsGuest, "member": api.AsMember, "owner": api.AsOwner}
	routes := 0
	for path, item := range description.OpenAPI().Paths {
		for method, op := range map[string]any{"GET": item.Get, "POST": item.Post, "PUT": item.Put, "PATCH": item.Patch, "DELETE": item.Delete} {
			o := operationOf(op)
			if o == nil {
				continue
			}
			routes++
			words, ok := promised[o.OperationID]
			delete(promised, o.OperationID)
			least, known := levels[words]
			if !ok || !known {
				t.Errorf("%s %s: the description promises %q", method, path, words)
				continue
			}
			for who, access := range has {
				status := h.knock(method, strings.NewReplacer("{id}", "1", "{slug}", "tv", "{subject}", "tv", "{right}", "call").Replace(path), who)
				refused := status == http.StatusUnauthorized || status == http.StatusForbidden && o.OperationID != "login" // whose proof is missing
				want := http.StatusForbidden
				if access == api.AsNobody {
					want = http.StatusUnauthorized
				}
				if may := access >= least; may == refused || !may && status != want {
					t.Errorf("%s %s as %s, for %s and above: %d", method, path, who, words, status)
				}
				if o.OperationID == "logout" && access >= least {
					h.login(who)
				}
			}
		}
	}
	if routes < 45 || len(promised) > 0 {
		t.Errorf("%d routes; promised and not there: %v", routes, promised)
	}
	for who, want := range map[string]int{"nobody": http.StatusUnauthorized, "removed": http.StatusUnauthorized, "guest": http.StatusOK} {
		if status := h.knock(http.MethodGet, "/api/v1/openapi.json", who); status != want {
			t.Errorf("the description as %s: %d", who, status)
		}
	}
}

var levels = map[string]api.Access{"nobody": api.AsNobody, "guest": api.AsGuest, "member": api.AsMember, "owner": api.AsOwner, "local": api.AsLocal}

// leastOfDescription reads what docs/openapi.json promises, by operation.
func leastOfDescription(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("../../../../docs/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Paths map[string]map[string]struct {
			ID    string `json:"operationId"`
			Least string `json:"x-least-access"`
		}
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, methods := range d.Paths {
		for _, o := range methods {
			out[o.ID] = o.Least
		}
	}
	return out
}

// knock asks and gives the status; 0: the backend was reached, which answers nothing here.
func (h *house) knock(method, path, who string) int {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Second)
	defer cancel() // a stream has no end
	res, err := h.client.Do(h.request(method, path, who, nil).WithContext(ctx))
	if err != nil {
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}

func portOfHost(host string) string {
	_, port, _ := net.SplitHostPort(host)
	return port
}
