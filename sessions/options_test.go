package sessions

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/profiles"
)

// noCalls refuses everybody, in words.
type noCalls struct{}

func (noCalls) MayCall(devices.Device, string) error { return errors.New("Not Before Eight") }

// OPTIONS gets the status that an INVITE would get, and rings nobody.
func TestOptionsSaysWhatACallWouldGet(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel", room: "kitchen"},
		member{slug: "nursery", config: func(c *Config) { c.Policy = noCalls{} }},
		member{slug: "hall", config: func(c *Config) { c.Behaviour = profiles.Behaviour{MaxCalls: 1, AutoAnswer: true}; c.AutoAnswer = true }})
	tv := h.phones["tv"]
	ask := func(slug, to string) Willing {
		t.Helper()
		w, err := tv.Options(t.Context(), h.phones[slug].id, to)
		if err != nil || w.Took <= 0 {
			t.Fatalf("%s: %+v %v", slug, w, err)
		}
		return w
	}
	tv.calls("hall")
	tv.is(StateActive)
	for _, c := range []struct {
		slug, to string
		code     int
	}{{"panel", "", 200}, {"panel", "kitchen", 200}, {"panel", "attic", 404}, {"hall", "", 486}, {"nursery", "", 403}} {
		if w := ask(c.slug, c.to); w.Code != c.code {
			t.Errorf("%s as %q: %+v, want %d", c.slug, c.to, w, c.code)
		}
	}
	if w := ask("nursery", ""); w.Words != "Not Before Eight" {
		t.Errorf("the policy's words became %q", w.Words)
	}
	cut(tv, h.phones["panel"])
	if _, err := tv.Options(t.Context(), h.phones["panel"].id, ""); err == nil {
		t.Error("a device without a flow answered")
	}
	for _, slug := range []string{"panel", "nursery"} {
		if n := len(h.phones[slug].Calls()); n != 0 {
			t.Errorf("%s noticed %d calls", slug, n)
		}
	}
}

// A trial of the media path opens nothing, makes no call, and leaves nothing behind.
func TestTrialOpensNothing(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel"})
	tv, panel := h.phones["tv"], h.phones["panel"]
	changes := panel.Watch(t.Context())
	if _, err := tv.TryMedia(t.Context(), panel.id); err != nil {
		t.Fatal(err)
	}
	tv.media.blocked.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := tv.TryMedia(ctx, panel.id); !errors.Is(err, ErrNoPath) {
		t.Errorf("a blocked path: %v", err)
	}
	panel.media.noCodec.Store(true)
	if _, err := tv.TryMedia(t.Context(), panel.id); !errors.Is(err, ErrRefused) {
		t.Errorf("a side that cannot: %v", err)
	}
	eventually(t, "the legs are closed", func() bool { return tv.media.living.Load() == 0 && panel.media.living.Load() == 0 })
	if n := tv.media.starts.Load() + panel.media.starts.Load(); n != 0 {
		t.Errorf("%d times camera or microphone opened", n)
	}
	if len(panel.Calls()) != 0 || len(changes) != 0 {
		t.Error("a trial rang")
	}
}

func TestQuestionsReachTheDoctorOfAMember(t *testing.T) {
	heard := make(chan devices.Device, 8)
	release := make(chan struct{})
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel", config: func(c *Config) {
		c.Examine = func(ctx context.Context, from devices.Device, q []byte) ([]byte, error) {
			heard <- from
			switch string(q) {
			case "wait":
				select {
				case <-release:
				case <-ctx.Done():
				}
			case "much":
				return make([]byte, maxAnswer+1), nil
			case "fail":
				return nil, errors.New("it broke")
			}
			return append([]byte("you asked "), q...), nil
		}
	}})
	tv, panel := h.phones["tv"], h.phones["panel"]
	got, err := tv.Ask(t.Context(), panel.id, []byte("why"))
	if err != nil || string(got) != "you asked why" {
		t.Fatalf("%q %v", got, err)
	}
	if d := <-heard; d.Slug != "tv" {
		t.Errorf("it thinks that %q asked", d.Slug)
	}
	for _, q := range []string{"much", "fail"} {
		if _, err := tv.Ask(t.Context(), panel.id, []byte(q)); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", q, err)
		}
		<-heard
	}
	if _, err := tv.Ask(t.Context(), panel.id, make([]byte, maxQuestion+1)); err == nil {
		t.Error("a question of any length is sent")
	}
	if _, err := panel.Ask(t.Context(), tv.id, []byte("why")); !errors.Is(err, ErrRefused) {
		t.Errorf("a node without a doctor: %v", err)
	}
	eventually(t, "the earlier ones are over", func() bool { return len(panel.exams) == 0 }) // the answer leaves first
	answers := make(chan error, maxExams)
	for range maxExams {
		go func() {
			_, err := tv.Ask(t.Context(), panel.id, []byte("wait"))
			answers <- err
		}()
	}
	for range maxExams {
		<-heard
	}
	if _, err := tv.Ask(t.Context(), panel.id, []byte("why")); !errors.Is(err, ErrRefused) {
		t.Errorf("one more than are run at once: %v", err)
	}
	close(release)
	for range maxExams {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}

// Who speaks in another's name gets neither a trial nor an answer, and an unknown body no
// guess at what it means.
func TestExaminationsAreScreened(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "camera"}, member{slug: "panel", config: func(c *Config) {
		c.Examine = func(context.Context, devices.Device, []byte) ([]byte, error) {
			t.Error("somebody who speaks in another's name was answered")
			return nil, nil
		}
	}}, member{slug: "nursery", config: func(c *Config) { c.Policy = noCalls{} }})
	tv := h.phones["tv"]
	send := func(to, from, kind string) int {
		dlg := &dialog{
			peer: h.phones[to].id, callID: token(8), localTag: token(4), local: uri(devices.AOR{Slug: from, Home: homeOf(t, tv)}),
			remote: uri(selfOf(t, h.phones[to]).AOR), target: uri(selfOf(t, h.phones[to]).AOR),
		}
		req := tv.request(sip.OPTIONS, dlg, 1)
		ct := sip.ContentTypeHeader(kind)
		req.AppendHeader(&ct)
		req.SetBody([]byte("v=0\r\n" + strings.Repeat("x", 20)))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		res, err := tv.roundTrip(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode
	}
	for _, c := range []struct {
		to, from, kind string
		code           int
	}{
		{"panel", "camera", QuestionType, 403}, {"panel", "camera", "application/sdp", 403}, {"panel", "nobody", QuestionType, 403},
		{"panel", "tv", "text/plain", 415}, {"nursery", "tv", "application/sdp", 403},
	} {
		if code := send(c.to, c.from, c.kind); code != c.code {
			t.Errorf("%+v: %d", c, code)
		}
	}
	if n := h.phones["panel"].media.living.Load() + h.phones["nursery"].media.living.Load(); n != 0 {
		t.Errorf("%d legs were made", n)
	}
}
