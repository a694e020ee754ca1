package web

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
)

func operationOf(o any) *huma.Operation {
	op, _ := o.(*huma.Operation)
	return op
}

// TestA34_NothingComesFromOtherSites sends what a foreign page could make a browser send, with the
// cookie of an owner: nothing may change, nothing may be read.
func TestA34_NothingComesFromOtherSites(t *testing.T) {
	h := newHouse(t)
	h.login("owner")
	put := func(change func(*http.Request)) *http.Request {
		r := h.request(http.MethodPut, "/api/v1/volume", "owner", map[string]int{"level": 42})
		change(r)
		return r
	}
	get := func(change func(*http.Request)) *http.Request {
		r := h.request(http.MethodGet, "/api/v1/status", "owner", nil)
		change(r)
		return r
	}
	for name, x := range map[string]struct {
		r    *http.Request
		want int
	}{
		"a rebinding page writes":      {put(func(r *http.Request) { r.Host = "evil.example"; r.Header.Set("Origin", "https://evil.example") }), 421},
		"a rebinding page reads":       {get(func(r *http.Request) { r.Host = "evil.example:8443" }), 421},
		"by address":                   {get(func(r *http.Request) { r.Host = h.addr }), 421},
		"the right name, another port": {get(func(r *http.Request) { r.Host = strings.Split(h.host, ":")[0] + ":1" }), 421},
		"a form of another site": {put(func(r *http.Request) {
			r.Header.Set("Origin", "https://evil.example")
			r.Header.Set("Sec-Fetch-Site", "cross-site")
		}), 403},
		"a form without origin":       {put(func(r *http.Request) { r.Header.Del("Origin"); r.Header.Del("Sec-Fetch-Site") }), 403},
		"a form from nowhere":         {put(func(r *http.Request) { r.Header.Set("Origin", "null") }), 403},
		"a neighbour's port":          {put(func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }), 403},
		"a text that is no JSON":      {put(func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }), 415},
		"a form's encoding":           {put(func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }), 415},
		"no CSRF token":               {put(func(r *http.Request) { r.Header.Del("X-CSRF-Token") }), 403},
		"a wrong CSRF token":          {put(func(r *http.Request) { r.Header.Set("X-CSRF-Token", strings.Repeat("0", 64)) }), 403},
		"no cookie":                   {put(func(r *http.Request) { r.Header.Del("Cookie") }), 401},
		"a fetch of another site":     {get(func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }), 403},
		"a fetch with another origin": {get(func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }), 403},
		"an image of another site": {get(func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", "cross-site")
			r.Header.Set("Sec-Fetch-Dest", "image")
		}), 403},
		"a link to the API": {get(func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", "cross-site")
			r.Header.Set("Sec-Fetch-Mode", "navigate")
			r.Header.Set("Sec-Fetch-Dest", "document")
		}), 403},
		"a web socket of another site": {get(func(r *http.Request) {
			r.Header.Set("Upgrade", "websocket")
			r.Header.Set("Origin", "https://evil.example")
		}), 403},
		"a web socket without an origin": {get(func(r *http.Request) { r.Header.Set("Upgrade", "websocket") }), 403},
		"a preflight":                    {h.preflight(), 403},
	} {
		status, body := h.do(x.r)
		if status != x.want {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	if v := h.b.volume.Load(); v != 0 {
		t.Errorf("the volume was set to %d", v)
	}
	if status, body := h.do(put(func(*http.Request) {})); status != http.StatusOK || h.b.volume.Load() != 42 {
		t.Errorf("the app itself: %d %s", status, body)
	}
}

func (h *house) preflight() *http.Request {
	r := h.request(http.MethodOptions, "/api/v1/volume", "", nil)
	r.Header.Set("Origin", "https://evil.example")
	r.Header.Set("Access-Control-Request-Method", "PUT")
	return r
}

func TestNothingChangesByReading(t *testing.T) {
	h := newHouse(t)
	_, description := api.NewHandler(h.b, h.s.login, "test")
	for path, item := range description.OpenAPI().Paths {
		if item.Get != nil && item.Get.RequestBody != nil {
			t.Errorf("GET %s takes a body", path)
		}
	}
}

func TestEveryAnswerIsProtected(t *testing.T) {
	h := newHouse(t)
	for _, path := range []string{"/", "/panel", "/assets/a.js", "/trust", "/trust/hallway.crt", "/healthz", "/api/v1/status", "/nothing.js"} {
		res, err := h.client.Do(h.request(http.MethodGet, path, "", nil))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		for _, k := range []string{"Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "X-Frame-Options"} {
			if res.Header.Get(k) == "" {
				t.Errorf("%s has no %s", path, k)
			}
		}
		for k := range res.Header {
			if strings.HasPrefix(k, "Access-Control-") {
				t.Errorf("%s answers with %s", path, k)
			}
		}
		if strings.Contains(res.Header.Get("Content-Security-Policy"), "unsafe") {
			t.Error("the policy lets scripts in")
		}
	}
}

func TestByAddressItOnlyExplains(t *testing.T) {
	h := newHouse(t)
	for path, want := range map[string]int{"/": 421, "/panel": 421, "/trust": 200, "/trust/hallway.mobileconfig": 200, "/api/v1/status": 421} {
		r := h.request(http.MethodGet, path, "", nil)
		r.Host = h.addr
		status, body := h.do(r)
		if status != want || path == "/" && !strings.Contains(body, "https://"+h.host+"/") {
			t.Errorf("%s: %d %s", path, status, body)
		}
		if strings.Contains(body, "<p>app") {
			t.Errorf("%s gives the app under another origin", path)
		}
	}
}

// TestIdleConnectionsKeepNobodyOut holds a thousand connections that say nothing, say half a
// request, or keep an answered one, and logs in beside them.
func TestIdleConnectionsKeepNobodyOut(t *testing.T) {
	h := newHouse(t)
	var held []net.Conn
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	for i := range 1000 {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
		if i%50 == 0 { // a handshake costs CPU; most attackers would spare it
			secure := tls.Client(c, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // an attacker does not care
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			if secure.HandshakeContext(t.Context()) == nil {
				_, _ = io.WriteString(secure, "POST /api/v1/session HTTP/1.1\r\nHost: "+h.host+"\r\nContent-Length: 1000\r\n")
			}
		}
	}
	began := time.Now()
	h.login("member")
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("a login beside them took %v", took)
	} else {
		t.Logf("a login beside a thousand took %v", took)
	}
}

// TestSlowBodiesKeepNobodyOut: one host with many addresses fills all places with requests whose
// bodies do not come. Somebody logs in beside them, and who is logged in keeps what is open.
func TestSlowBodiesKeepNobodyOut(t *testing.T) {
	h := newHouse(t)
	h.login("owner")
	stream := h.stream("owner")
	var held []net.Conn
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	for i := range maxConns + 2*maxPerSource {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i%16))}}
		raw, err := d.DialContext(t.Context(), "tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // an attacker does not care
		held = append(held, raw)
		_, _ = io.WriteString(c, "POST /api/v1/session HTTP/1.1\r\nHost: "+h.host+"\r\nOrigin: https://"+h.host+"\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{") // it may be put out at once
	}
	began := time.Now()
	h.client.CloseIdleConnections()
	h.login("member")
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("a login beside them took %v", took)
	} else {
		t.Logf("a login beside %d took %v", len(held), took)
	}
	select {
	case <-stream:
		t.Error("the stream of somebody who is logged in was ended for them")
	default:
	}
}

// TestAMountedHandlerKnowsWhoAsks is what the SIP edge stands on.
func TestAMountedHandlerKnowsWhoAsks(t *testing.T) {
	var asked Session
	h := newHouse(t, Mount{Path: "/sip", Least: api.AsMember, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked, _ = SessionOf(r.Context())
	})})
	h.login("member")
	h.login("guest")
	socket := func(who string) *http.Request {
		r := h.request(http.MethodGet, "/sip", who, nil)
		r.Header.Set("Upgrade", "websocket")
		r.Header.Set("Origin", "https://"+h.host)
		return r
	}
	if status, _ := h.do(socket("")); status != http.StatusUnauthorized {
		t.Error("nobody:", status)
	}
	if status, _ := h.do(socket("guest")); status != http.StatusForbidden {
		t.Error("a guest:", status)
	}
	if status, _ := h.do(socket("member")); status != http.StatusOK || asked.Person != "member" || asked.Phone != h.people["member"].id {
		t.Errorf("%d %+v", status, asked)
	}
	h.s.sessions.endAll()
	select {
	case <-asked.Done():
	case <-time.After(5 * time.Second):
		t.Error("the session's end is not seen")
	}
}

// TestAKioskNeedsNoTLSAndNothingLess: a browser on the device itself logs in as any other, under
// the one name localhost.
func TestAKioskNeedsNoTLSAndNothingLess(t *testing.T) {
	h := newHouse(t)
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	ask := func(method, path, host string, body any, cookies ...*http.Cookie) *http.Response {
		t.Helper()
		r := h.request(method, path, "", body)
		r.URL.Scheme, r.URL.Host, r.Host = "http", strings.Replace(h.kiosk, "localhost", "127.0.0.1", 1), host
		if r.Header.Get("Origin") != "" {
			r.Header.Set("Origin", "http://"+host)
		}
		for _, c := range cookies {
			r.AddCookie(c)
		}
		res, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		return res
	}
	for host, want := range map[string]int{h.kiosk: 401, h.host: 421, "evil.example": 421, "127.0.0.1:" + portOfHost(h.kiosk): 421} {
		if res := ask(http.MethodGet, "/api/v1/status", host, nil); res.StatusCode != want {
			t.Errorf("as %s: %d", host, res.StatusCode)
		}
	}
	if res := ask(http.MethodPost, "/api/v1/session", h.kiosk, h.signed(h.people["member"], h.host, h.challenge())); res.StatusCode != http.StatusForbidden {
		t.Error("a login signed for the other origin:", res.StatusCode)
	}
	res := ask(http.MethodPost, "/api/v1/session", h.kiosk, h.signed(h.people["member"], h.kiosk, h.challenge()))
	if res.StatusCode != http.StatusOK || len(res.Cookies()) != 1 {
		t.Fatal(res.StatusCode)
	}
	if res := ask(http.MethodGet, "/api/v1/status", h.kiosk, nil, res.Cookies()...); res.StatusCode != http.StatusOK {
		t.Error(res.StatusCode)
	}
}
