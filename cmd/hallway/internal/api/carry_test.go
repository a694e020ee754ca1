package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hallway-home/hallway/devices"
)

// carrier is a node that is no owner's: it notes what it is to carry.
type carrier struct {
	Doors
	asks []Wish
	says Carried
}

func (c *carrier) Carries() bool { return true }

func (c *carrier) Carry(_ context.Context, w Wish) Carried {
	c.asks = append(c.asks, w)
	return c.says
}

func TestWhatAnOwnersNodeMustDoIsCarried(t *testing.T) {
	f, c := &fake{}, &carrier{says: Carried{Status: http.StatusUnauthorized, Body: []byte(`{"detail":"sign"}`), Ask: "Hallway-Wish x"}}
	h, _ := NewHandler(f, c, "0")
	do := func(access Access, method, path, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(WithCaller(t.Context(), Caller{Access: access}), method, Prefix+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Hallway-Wish y")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	w := do(AsOwner, http.MethodPatch, "/home/names/t%20v", `{"name":"Bad"}`)
	if w.Code != 401 || w.Header().Get("WWW-Authenticate") != "Hallway-Wish x" || w.Header().Get("Content-Type") != "application/problem+json" || w.Body.String() != `{"detail":"sign"}` {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	want := Wish{Method: http.MethodPatch, Path: Prefix + "/home/names/t%20v", Body: []byte(`{"name":"Bad"}`), Authorization: "Hallway-Wish y"}
	if len(c.asks) != 1 || c.asks[0].Path != want.Path || c.asks[0].Method != want.Method || string(c.asks[0].Body) != string(want.Body) || c.asks[0].Authorization != want.Authorization {
		t.Fatalf("%+v", c.asks)
	}
	c.says = Carried{Status: http.StatusNoContent}
	if w := do(AsOwner, http.MethodDelete, "/home/members/tv", ""); w.Code != 204 || len(c.asks) != 2 {
		t.Errorf("%d %d", w.Code, len(c.asks))
	}
	if w := do(AsMember, http.MethodDelete, "/home/members/tv", ""); w.Code != 403 || len(c.asks) != 2 || len(f.did) > 0 {
		t.Errorf("a member's wish left the house: %d %v", w.Code, f.did)
	}
	for _, path := range []string{"/status", "/home", "/home/log", "/volume", "/calls"} { // each node knows itself
		if w := do(AsOwner, http.MethodGet, path, ""); w.Code != 200 || len(c.asks) != 2 {
			t.Errorf("%s: %d, carried %d", path, w.Code, len(c.asks))
		}
	}
}

func TestOnlyWhatIsCarriedIsCarriedOut(t *testing.T) {
	f := &fake{}
	h, _ := NewHandler(f, nil, "0")
	who := Caller{Access: AsOwner, Via: devices.NodeID{1}}
	run := func(method, path, body string) Carried {
		return CarryOut(t.Context(), h, who, Wish{Method: method, Path: Prefix + path, Body: []byte(body)}, slog.New(slog.DiscardHandler))
	}
	if a := run(http.MethodPut, "/home/rules/tv/call", `{"who":[]}`); a.Status != 204 || len(f.did) != 1 {
		t.Errorf("%d %s %v", a.Status, a.Body, f.did)
	}
	if a := run(http.MethodPost, "/phones/window", `{"name":"Ben"}`); a.Status != 200 || !strings.Contains(string(a.Body), `"state":"open"`) {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	f.did = nil
	for path, body := range map[string]string{"/phones/window": `{"name":"Ben","trusted":true}`, "/invite": `{}`, "/calls": `{"to":"tv"}`, "/pair": `{}`} {
		if a := run(http.MethodPost, path, body); a.Status/100 != 4 || len(f.did) > 0 {
			t.Errorf("%s: %d %s %v", path, a.Status, a.Body, f.did)
		}
	}
	if a := run(http.MethodGet, "/volume", ""); a.Status != 403 {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	for name, odd := range map[string]http.HandlerFunc{
		"a long answer": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, maxCarried+1)) },
		"a panic":       func(http.ResponseWriter, *http.Request) { panic("broken") },
	} {
		a := CarryOut(t.Context(), odd, who, Wish{Method: http.MethodGet, Path: Prefix + "/home"}, slog.New(slog.DiscardHandler))
		if a.Status != http.StatusInternalServerError || !strings.Contains(string(a.Body), `"detail"`) {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
}
