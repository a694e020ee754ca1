package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/pairing"
	"github.com/hallway-home/hallway/devices/trust"
	"github.com/hallway-home/hallway/sessions"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden OpenAPI document")

// fake answers with what it was told; every change is noted.
type fake struct {
	err    error
	did    []string
	events chan Event
}

func (f *fake) note(format string, args ...any) error {
	f.did = append(f.did, fmt.Sprintf(format, args...))
	return f.err
}

func (f *fake) Status() Status               { return Status{Name: "TV"} }
func (f *fake) Process() Process             { return Process{} }
func (f *fake) Directory() *devices.Snapshot { return devices.Fold(devices.Inputs{}) }
func (f *fake) Calls() []sessions.CallInfo   { return nil }
func (f *fake) Call(id string) (sessions.CallInfo, error) {
	return sessions.CallInfo{ID: id}, f.note("call %s", id)
}
func (f *fake) StartCall(to string, video bool) (sessions.CallInfo, error) {
	return sessions.CallInfo{ID: "1"}, f.note("start %s %v", to, video)
}
func (f *fake) Answer(id string) error  { return f.note("answer %s", id) }
func (f *fake) Decline(id string) error { return f.note("decline %s", id) }
func (f *fake) Volume() Volume          { return Volume{Level: 80, Works: true} }
func (f *fake) SetVolume(level int) (Volume, error) {
	return Volume{Level: level, Works: true}, f.note("volume %d", level)
}
func (f *fake) DND() DND { return DND{} }
func (f *fake) SetDND(on bool) (DND, error) {
	return DND{On: on}, f.note("dnd %v", on)
}
func (f *fake) Hangup(id string) error { return f.note("hangup %s", id) }
func (f *fake) ChangeCall(_ context.Context, id string, c CallChange) (sessions.CallInfo, error) {
	return sessions.CallInfo{ID: id}, f.note("change %s %v %v %s", id, c.Hold != nil && *c.Hold, c.Mute != nil && *c.Mute, c.Video)
}
func (f *fake) CreateHome(n string) (string, error) { return "CODE", f.note("create %s", n) }
func (f *fake) Home() (Home, error)                 { return Home{}, f.err }
func (f *fake) History() ([]LogEntry, error)        { return []LogEntry{}, f.err }
func (f *fake) Remove(s string) (Removal, error) {
	return Removal{State: "removed"}, f.note("remove %s", s)
}
func (f *fake) ChangeMember(s string, r devices.Role, c devices.Class) error {
	return f.note("change %s %s %s", s, r, c)
}
func (f *fake) Recover(c string, r []string) error { return f.note("recover %s %v", c, r) }
func (f *fake) Checkpoint(c string) error          { return f.note("checkpoint %s", c) }
func (f *fake) DeleteName(s string) error          { return f.note("delete %s", s) }
func (f *fake) SetForeign(r ForeignRequest) error {
	return f.note("foreign %s %s %v", r.Name, r.URI, r.Speakers)
}
func (f *fake) SetRule(r devices.Rule) error {
	return f.note("rule %s %s %v %s", r.Subject, r.Right, r.Who, r.Hours)
}
func (f *fake) DeleteRule(k devices.RuleKey) error     { return f.note("unrule %s %s", k.Subject, k.Right) }
func (f *fake) Rename(s, n, r string) error            { return f.note("rename %s %s %s", s, n, r) }
func (f *fake) SetRoom(n string) error                 { return f.note("room %s", n) }
func (f *fake) SetGroup(s, n string, m []string) error { return f.note("group %s %s %v", s, n, m) }
func (f *fake) SetPerson(s, n string, m []string) error {
	return f.note("person %s %s %v", s, n, m)
}
func (f *fake) OpenPairing(m int) (PairState, error) {
	return PairState{State: "open"}, f.note("pair %d", m)
}
func (f *fake) ClosePairing() error { return f.note("close") }
func (f *fake) Pairing() PairState  { return PairState{State: "closed"} }
func (f *fake) Identify(_ context.Context, r AddRequest) (Candidate, error) {
	return Candidate{Class: devices.ClassTV}, f.note("identify %s %s", r.ID, r.Code)
}
func (f *fake) Add(_ context.Context, r AddRequest) (devices.Member, error) {
	return devices.Member{Slug: "cam"}, f.note("add %s %s", r.ID, r.Code)
}
func (f *fake) Invite(m int, s string) (InviteState, error) {
	return InviteState{Token: "hw1"}, f.note("invite %d %s", m, s)
}
func (f *fake) Adopt(_ context.Context, r AdoptRequest) (Adoption, error) {
	return Adoption{Slug: "door"}, f.note("adopt %s %s %s %s", r.URI, r.Name, r.Room, r.Via)
}
func (f *fake) OpenPhones(r PhoneRequest) (PhoneWindow, error) {
	return PhoneWindow{State: "open"}, f.note("phones %s %s", r.Name, r.Role)
}
func (f *fake) Phones() PhoneWindow         { return PhoneWindow{State: "closed"} }
func (f *fake) ConfirmPhone(yes bool) error { return f.note("confirm %v", yes) }
func (f *fake) ClosePhones() error          { return f.note("close phones") }
func (f *fake) ChangePerson(s string, r devices.Role, _ time.Time) error {
	return f.note("person %s %s", s, r)
}
func (f *fake) Trust() (Trust, error)          { return Trust{Words: "lusab"}, f.err }
func (f *fake) RenewTrust() (Trust, error)     { return Trust{Words: "babad"}, f.note("renew") }
func (f *fake) Doctor(context.Context) []Check { return nil }
func (f *fake) Diagnose(_ context.Context, from, to string) (Diagnosis, error) {
	return Diagnosis{From: from, To: to}, f.note("diagnose %s %s", from, to)
}
func (f *fake) Events(ctx context.Context) <-chan Event {
	out := make(chan Event)
	go func() {
		defer close(out)
		for {
			select {
			case e := <-f.events:
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// doors is only described here; the HTTPS server's tests walk through them.
type doors struct{ Doors }

// serve runs the API on a real socket.
func serve(t *testing.T, f *fake) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.sock")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	h, _ := NewHandler(f, nil, "test")
	go func() { done <- Serve(ctx, ln, h, slog.New(slog.DiscardHandler)) }()
	c := NewClient(path)
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		c.Close()
	})
	return c
}

func TestRoutesReachTheBackend(t *testing.T) {
	f := &fake{}
	c := serve(t, f)
	for _, r := range []struct {
		method, path string
		body         any
		want         string
	}{
		{"POST", "/calls", map[string]any{"to": "kitchen", "video": true}, "start kitchen true"},
		{"GET", "/calls/12", nil, "call 12"},
		{"GET", "/doctor/call?from=tv&to=cam", nil, "diagnose tv cam"},
		{"POST", "/calls/12/answer", nil, "answer 12"},
		{"POST", "/calls/12/decline", nil, "decline 12"},
		{"DELETE", "/calls/12", nil, "hangup 12"},
		{"PATCH", "/calls/12", map[string]any{"hold": true, "video": "receive"}, "change 12 true false receive"},
		{"PATCH", "/calls/12", map[string]any{"mute": true}, "change 12 false true "},
		{"POST", "/home", map[string]any{"name": "H"}, "create H"},
		{"DELETE", "/home/members/cam", nil, "remove cam"},
		{"PATCH", "/home/names/cam", map[string]any{"name": "Cam", "room": "Attic"}, "rename cam Cam Attic"},
		{"PATCH", "/home/members/cam", map[string]any{"role": "owner"}, "change cam owner "},
		{"POST", "/home/recover", map[string]any{"code": "X", "remove": []string{"tv"}}, "recover X [tv]"},
		{"POST", "/home/checkpoint", map[string]any{"code": "X"}, "checkpoint X"},
		{"DELETE", "/home/names/attic", nil, "delete attic"},
		{"POST", "/home/foreign", map[string]any{"name": "Gate", "uri": "sip:1@x", "speakers": []string{"tv"}}, "foreign Gate sip:1@x [tv]"},
		{"PUT", "/home/rules/all/call", map[string]any{"who": []string{"tv"}, "hours": "07:00-22:00"}, "rule all call [tv] 07:00-22:00"},
		{"DELETE", "/home/rules/all/door", nil, "unrule all door"},
		{"POST", "/home/rooms", map[string]any{"name": "Attic"}, "room Attic"},
		{"POST", "/home/groups", map[string]any{"name": "All", "members": []string{"a"}}, "group  All [a]"},
		{"POST", "/home/persons", map[string]any{"name": "M", "members": []string{"p"}}, "person  M [p]"},
		{"POST", "/pair", map[string]any{"minutes": 2}, "pair 2"},
		{"DELETE", "/pair", nil, "close"},
		{"POST", "/add/identify", map[string]any{"code": "1", "id": "ABCD"}, "identify ABCD 1"},
		{"POST", "/add", map[string]any{"code": "1", "id": "ABCD"}, "add ABCD 1"},
		{"POST", "/invite", map[string]any{}, "invite 0 "},
	} {
		f.did = nil
		if err := c.Do(t.Context(), r.method, r.path, r.body, nil); err != nil || len(f.did) != 1 || f.did[0] != r.want {
			t.Errorf("%s %s: did %q, %v; want %q", r.method, r.path, f.did, err, r.want)
		}
	}
	for _, p := range []string{"/status", "/devices", "/rooms", "/calls", "/profiles", "/home", "/pair", "/doctor", "/openapi.json"} {
		if err := c.Do(t.Context(), "GET", p, nil, nil); err != nil {
			t.Errorf("GET %s: %v", p, err)
		}
	}
}

func TestErrorsAreProblemsWithWords(t *testing.T) {
	f := &fake{}
	c := serve(t, f)
	for _, e := range []struct {
		err  error
		want int
	}{
		{sessions.ErrNoSuchCall, 404}, {trust.ErrNotOwner, 403}, {pairing.ErrWrongCode, 403}, {trust.ErrNoHome, 409},
		{pairing.ErrCode, 422}, {pairing.ErrGuessing, 429}, {errors.New("odd"), 500},
	} {
		f.err = fmt.Errorf("it: %w", e.err)
		var p Problem
		err := c.Do(t.Context(), "POST", "/calls/1/answer", nil, nil)
		if !errors.As(err, &p) || p.Status != e.want || p.Detail != f.err.Error() {
			t.Errorf("%v became %+v", e.err, err)
		}
	}
	f.err = nil
	for body, want := range map[string]int{`{"to":"x","colour":1}`: 422, `{`: 400, `{"to":5}`: 422, `{"to":"` + strings.Repeat("x", maxRequest) + `"}`: 413} {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://agent"+prefix+"/calls", strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		res, err := c.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want || !strings.Contains(res.Header.Get("Content-Type"), "problem+json") {
			t.Errorf("%.20s gave %d %s, want %d", body, res.StatusCode, res.Header.Get("Content-Type"), want)
		}
	}
	if len(f.did) > 0 && f.did[len(f.did)-1] != "answer 1" {
		t.Errorf("a bad request did %q", f.did)
	}
}

func TestEventsStream(t *testing.T) {
	f := &fake{events: make(chan Event, 1)}
	c := serve(t, f)
	f.events <- Event{Kind: "pairing", Pairing: &PairState{State: "open"}}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	stop := errors.New("enough")
	err := c.Events(ctx, func(e Event) error {
		if e.Pairing == nil || e.Pairing.State != "open" {
			t.Errorf("%+v", e)
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
}

func TestSocketOfALivingAgentIsKept(t *testing.T) {
	c := serve(t, &fake{})
	if _, err := Listen(c.socket); err == nil || !strings.Contains(err.Error(), "--data") {
		t.Fatalf("%v", err)
	}
	st, err := os.Stat(c.socket)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", st.Mode(), err)
	}
	dead := filepath.Join(t.TempDir(), "x.sock")
	if err := os.WriteFile(dead, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := Listen(dead)
	if err != nil {
		t.Fatalf("the socket of a dead agent is in the way: %v", err)
	}
	_ = ln.Close()
	if err := NewClient(dead).Do(t.Context(), "GET", "/status", nil, nil); !errors.Is(err, ErrNoAgent) {
		t.Fatalf("%v", err)
	}
}

func TestOpenAPIGolden(t *testing.T) {
	_, a := NewHandler(&fake{}, doors{}, "0")
	got, err := json.MarshalIndent(a.OpenAPI(), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	golden := filepath.Join("..", "..", "..", "..", "docs", "openapi.json")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the API is not what docs/openapi.json says (%v); look at the change, then: go test ./cmd/hallway/internal/api -run Golden -update", err)
	}
	if !bytes.Contains(got, []byte(`"openapi": "3.1.0"`)) {
		t.Error("it is not OpenAPI 3.1")
	}
}
