// Package demo owns `hallway demo`: a small home of real processes on this machine, on a
// private network, that finds itself, holds a call, and checks by decoding what each side
// recorded that it is what the other side sent.
package demo

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/sessions"
)

// DefaultLength is how long the rooms talk.
const DefaultLength = 8 * time.Second

// Options of a demo.
type Options struct {
	Dir       string
	Length    time.Duration
	Keep      bool
	Loopback  bool
	ClipsOnly bool
	JSON      bool
	Out       io.Writer
	Colour    bool
}

// summary is what --json prints.
type summary struct {
	OK         bool       `json:"ok"`
	Answered   float64    `json:"answer_to_media_ms"`
	Recordings []findings `json:"recordings"`
	Dir        string     `json:"dir"`
}

type demo struct {
	o      Options
	net    network
	agents []*agentProc
	door   *door // nil unless the home is kept
	began  time.Time
}

// cast is the home of the demo.
func cast(dir string) []*agentProc {
	list := []*agentProc{
		{name: "Living-room TV", class: "tv", room: "Living room", clip: clipSpec{Tone: 440}},
		{name: "Kitchen panel", class: "panel", room: "Kitchen", clip: clipSpec{Tone: 550}},
		{name: "Front door", class: "camera", room: "Entrance", clip: clipSpec{Tone: 660}},
	}
	for _, a := range list {
		a.dir = filepath.Join(dir, strings.ReplaceAll(strings.ToLower(a.name), " ", "-"))
		a.clip.File = filepath.Join(dir, "clips", a.class+".mkv")
		a.clip.Nonce = fresh()
	}
	return list
}

func fresh() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return binary.BigEndian.Uint32(b[:])
}

// Run is the whole demo; it returns an error unless everything held.
func Run(ctx context.Context, o Options) (err error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return err
	}
	o.Dir = dir
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "clips"), 0o755); err != nil { //nolint:gosec // people look into it
		return err
	}
	d := &demo{o: o, agents: cast(dir), began: time.Now()}
	for _, a := range d.agents {
		d.step("making the clip of the %s: number %08x, tone %.0f Hz", a.name, a.clip.Nonce, a.clip.Tone)
		if err := makeClip(ctx, a.clip); err != nil {
			return err
		}
	}
	if o.ClipsOnly {
		return nil
	}
	if d.net, err = newNetwork(o.Loopback); err != nil {
		return err
	}
	d.step("network: %s", d.net.describe())
	defer func() {
		for _, a := range d.agents {
			a.stop()
		}
		err = errors.Join(err, d.door.close(), d.net.close())
	}()
	if o.Keep {
		if err := d.makeDoor(); err != nil {
			return err
		}
	}
	if err := d.build(ctx); err != nil {
		return d.explain(err)
	}
	s, err := d.talk(ctx)
	if err != nil {
		return d.explain(err)
	}
	d.report(s)
	if !o.Keep {
		return nil
	}
	if err := d.net.open(d.door, d.agents[0]); err != nil {
		return err
	}
	return d.keep(ctx)
}

func (d *demo) step(format string, args ...any) {
	if d.o.JSON {
		return
	}
	stamp := fmt.Sprintf("%6.2fs", time.Since(d.began).Seconds())
	if d.o.Colour {
		stamp = "\x1b[2m" + stamp + "\x1b[0m"
	}
	_, _ = fmt.Fprintf(d.o.Out, "%s  %s\n", stamp, fmt.Sprintf(format, args...))
}

// explain adds where to look.
func (d *demo) explain(err error) error {
	return fmt.Errorf("%w (the agents' logs are in %s)", err, d.o.Dir)
}

// build starts the agents and makes one home of them.
func (d *demo) build(ctx context.Context) error {
	tv := d.agents[0]
	if err := tv.start(ctx, d.net, 0, ""); err != nil {
		return err
	}
	var made struct {
		Recovery string `json:"recovery"`
	}
	if err := tv.api.Do(ctx, http.MethodPost, "/home", map[string]string{"name": "Demo home"}, &made); err != nil {
		return err
	}
	d.step("the %s made a home (recovery code %s...)", tv.name, made.Recovery[:9])
	for i, a := range d.agents[1:] {
		var inv api.InviteState
		if err := tv.api.Do(ctx, http.MethodPost, "/invite", map[string]string{"seed": d.net.seed(tv)}, &inv); err != nil {
			return err
		}
		if err := a.start(ctx, d.net, i+1, inv.Token); err != nil {
			return err
		}
		began := time.Now()
		if err := d.await(ctx, tv, "the "+a.name+" to join", func(v api.Devices) bool { return reachable(v) == i+2 }); err != nil {
			return err
		}
		d.step("the %s joined and is in the directory after %d ms", a.name, time.Since(began).Milliseconds())
	}
	for _, a := range d.agents {
		if err := d.await(ctx, a, "the "+a.name+" to see all", func(v api.Devices) bool { return reachable(v) == len(d.agents) }); err != nil {
			return err
		}
	}
	d.step("every device lists all %d:", len(d.agents))
	var v api.Devices
	if err := tv.api.Do(ctx, http.MethodGet, "/devices", nil, &v); err != nil {
		return err
	}
	for _, x := range v.Devices {
		d.step("   %-16s %-12s %-8s sip:%s", x.Name, x.Room, x.Class, x.Slug)
	}
	return nil
}

func reachable(v api.Devices) int {
	n := 0
	for _, x := range v.Devices {
		if x.Status == devices.Reachable {
			n++
		}
	}
	return n
}

// await polls an agent's directory until it is as wanted.
func (d *demo) await(ctx context.Context, a *agentProc, what string, cond func(api.Devices) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		var v api.Devices
		err := a.api.Do(ctx, http.MethodGet, "/devices", nil, &v)
		if err == nil && cond(v) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited 20 s for %s: %w", what, errors.Join(ctx.Err(), err))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// talk holds the call and checks both recordings.
func (d *demo) talk(ctx context.Context) (summary, error) {
	tv, panel := d.agents[0], d.agents[1]
	s := summary{Dir: d.o.Dir}
	var out sessions.CallInfo
	if err := tv.api.Do(ctx, http.MethodPost, "/calls", map[string]any{"to": "kitchen", "video": true}, &out); err != nil {
		return s, err
	}
	d.step("the %s calls the kitchen", tv.name)
	in, err := d.ringing(ctx, panel)
	if err != nil {
		return s, err
	}
	d.step("the %s rings; somebody accepts", panel.name)
	if err := panel.api.Do(ctx, http.MethodPost, "/calls/"+in.ID+"/answer", nil, nil); err != nil {
		return s, err
	}
	accepted := time.Now()
	if err := d.flowing(ctx, out.ID); err != nil {
		return s, err
	}
	s.Answered = float64(time.Since(accepted).Microseconds()) / 1000
	d.step("sound and picture flow both ways %.0f ms after accepting", s.Answered)
	if err := d.statistics(ctx, out.ID); err != nil {
		return s, err
	}
	files, err := d.hangUp(ctx, out.ID)
	if err != nil {
		return s, err
	}
	d.step("hung up; checking the recordings")
	for i, side := range []*agentProc{panel, tv} {
		f, err := verify(ctx, files[i], side.clip, d.otherTones(side))
		s.Recordings = append(s.Recordings, f)
		if err != nil {
			return s, err
		}
	}
	s.OK = true
	return s, nil
}

func (d *demo) otherTones(a *agentProc) []float64 {
	var out []float64
	for _, x := range d.agents {
		if x != a {
			out = append(out, x.clip.Tone)
		}
	}
	return out
}

func (d *demo) ringing(ctx context.Context, a *agentProc) (sessions.CallInfo, error) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		var calls []sessions.CallInfo
		if err := a.api.Do(ctx, http.MethodGet, "/calls", nil, &calls); err != nil {
			return sessions.CallInfo{}, err
		}
		for _, c := range calls {
			if c.State == sessions.StateIncoming {
				return c, nil
			}
		}
	}
	return sessions.CallInfo{}, fmt.Errorf("the %s did not ring within 10 s", a.name)
}

// flowing waits until both sides receive sound and picture.
func (d *demo) flowing(ctx context.Context, id string) error {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		all := true
		for _, a := range d.agents[:2] {
			var c sessions.CallInfo
			if err := a.api.Do(ctx, http.MethodGet, "/calls/"+id, nil, &c); err != nil {
				return err
			}
			if c.State == sessions.StateEnded {
				return errors.New("the call ended: " + c.Reason)
			}
			all = all && c.Stats.Audio.PacketsReceived > 0 && c.Stats.Video.PacketsReceived > 0
		}
		if all {
			return nil
		}
	}
	return errors.New("no sound or no picture within 10 s of accepting")
}

func (d *demo) statistics(ctx context.Context, id string) error {
	end := time.Now().Add(d.o.Length)
	for time.Now().Before(end) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(time.Second, time.Until(end))):
		}
		for _, a := range d.agents[:2] {
			var c sessions.CallInfo
			if err := a.api.Do(ctx, http.MethodGet, "/calls/"+id, nil, &c); err != nil {
				return err
			}
			st := c.Stats
			d.step("   %-16s received %5d sound %5d picture packets, %d lost, jitter %.1f ms", a.name,
				st.Audio.PacketsReceived, st.Video.PacketsReceived, st.Audio.Lost+st.Video.Lost, st.Video.JitterMs)
		}
	}
	return nil
}

// hangUp ends the call at the caller's and returns the recordings: of the caller (who
// heard the panel), then of the panel (who heard the caller).
func (d *demo) hangUp(ctx context.Context, id string) ([]string, error) {
	if err := d.agents[0].api.Do(ctx, http.MethodDelete, "/calls/"+id, nil, nil); err != nil {
		return nil, err
	}
	var files []string
	for _, a := range d.agents[:2] {
		var c sessions.CallInfo
		for end := time.Now().Add(5 * time.Second); c.State != sessions.StateEnded; time.Sleep(5 * time.Millisecond) {
			if err := a.api.Do(ctx, http.MethodGet, "/calls/"+id, nil, &c); err != nil {
				return nil, err
			}
			if time.Now().After(end) {
				return nil, fmt.Errorf("the call did not end at the %s", a.name)
			}
		}
		files = append(files, c.Stats.Recording)
	}
	return files, nil
}

func (d *demo) report(s summary) {
	if d.o.JSON {
		_ = json.NewEncoder(d.o.Out).Encode(s)
		return
	}
	d.say("\n%-16s %-9s %-8s %-9s %-8s %s", "RECORDED BY", "NUMBER", "FRAMES", "DISTINCT", "TONE", "SOUND AGAINST PICTURE")
	for i, f := range s.Recordings {
		d.say("%-16s %08x  %-8d %-9s %-8s %+.0f ms", d.agents[i].name, f.Nonce, f.Frames, fmt.Sprintf("%.1f %%", 100*f.Distinct), fmt.Sprintf("%.0f Hz", f.Tone), float64(f.Skew.Microseconds())/1000)
	}
	d.say("")
	for _, f := range s.Recordings {
		d.say("  %s", f.File)
	}
	d.say("\nEach side recorded what the other one sent. Done in %.1f s.", time.Since(d.began).Seconds())
}

func writeFile(path string, b []byte) error { return os.WriteFile(path, b, 0o600) }
