package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// An output that does not work is said in the call, in plain words and with what to do, on
// the device where a person stands before a dark screen; and no longer when it works. The
// screen is a real X server that is not there, and then is.
func TestA35_DarkScreenIsSaid(t *testing.T) {
	needs(t, "Xvfb", "ffmpeg", "ffplay")
	l := newLab(t)
	cam := newNode(t, l, "Cam", "tv", "", append(ownProfile(t, "tv", "opus", "H264", colours("ffmpeg")), "--source-pipeline", "colours")...).start().found()
	panel := newNode(t, l, "Panel", "panel", "", "--sink-pipeline", "screen")
	dir := t.TempDir()
	number := 300 + os.Getpid()%5000
	d := display{name: fmt.Sprintf(":%d", number), frame: dir + "/Xvfb_screen0"}
	t.Setenv("DISPLAY", d.name)
	t.Setenv("SDL_AUDIODRIVER", "dummy")
	cam.invite(panel)
	id := ask[call](cam, "call", "panel", "--detach").ID
	panel.incoming()
	events := panel.events()
	start := time.Now()
	panel.run("answer", id)
	var said string

	panel.eventually(20*time.Second, "the call says that the screen does not work", func() bool {
		said = strings.Join(panel.call(id).Trouble, " ")
		return strings.Contains(said, "The screen of this device does not work: ffplay says") && strings.Contains(said, "see that it runs")
	})
	t.Logf("after %v: %s", time.Since(start).Round(10*time.Millisecond), said)
	if out := panel.run("calls"); !strings.Contains(out, "The screen of this device does not work") {
		t.Errorf("`hallway calls` does not say it: %s", out)
	}
	if c := cam.call(id); c.State != "active" || strings.Contains(strings.Join(c.Trouble, " "), "this device") {
		t.Errorf("the other side has a call that is %s, with %q", c.State, c.Trouble)
	}
	service(t, panel, nil, "Xvfb", d.name, "-screen", "0", fmt.Sprintf("%dx%dx24", screenWidth, screenHeight), "-nolisten", "tcp", "-fbdir", dir)
	panel.eventually(30*time.Second, "the picture is on the screen that came", func() bool {
		if _, err := os.Stat(d.frame); err != nil {
			return false
		}
		got := d.shot(t)
		return isBlue(got) || isYellow(got)
	})
	panel.eventually(10*time.Second, "the sentence is taken back", func() bool { return !strings.Contains(strings.Join(panel.call(id).Trouble, " "), "does not work") })
	var told, untold bool // as events
	for deadline := time.After(5 * time.Second); !untold; {
		select {
		case e := <-events:
			if e.Call != nil && e.Call.ID == id {
				says := strings.Contains(strings.Join(e.Call.Trouble, " "), "The screen of this device")
				told = told || says
				untold = told && !says
			}
		case <-deadline:
			t.Fatalf("no event: said %v, taken back %v", told, untold)
		}
	}
	cam.run("hangup", id)
}

// A source that drops out is said while its program is started again, and taken back.
func TestA35_MicrophoneThatDropsOutIsSaid(t *testing.T) {
	t.Parallel()
	needs(t, "ffmpeg")
	l := newLab(t)
	drops := `  - name: drops
    kind: source
    about: a microphone whose cable is loose
    command: [ffmpeg, -hide_banner, -loglevel, error]
    audio:
      codecs: [opus]
      input: [-re, -f, lavfi, -i, "sine=frequency=440:sample_rate=48000:duration=7"]
      output: [-map, "{{.Input}}:a", "{{.Encoder}}", -f, rtp, "rtp://127.0.0.1:{{.Port}}"]
`
	one := newNode(t, l, "One", "tv", "", append(ownProfile(t, "tv", "opus", "H264", drops), "--source-pipeline", "drops")...).start().found()
	two := newNode(t, l, "Two", "speaker", "")
	one.invite(two)
	id := ask[call](one, "call", "two", "--detach").ID
	two.incoming()
	two.run("answer", id)
	one.eventually(10*time.Second, "the call runs", func() bool { return one.call(id).State == "active" })
	events := one.events()
	for said, deadline := false, time.After(40*time.Second); ; {
		select {
		case e := <-events:
			if e.Call == nil || e.Call.ID != id {
				continue
			}
			if e.Call.State == "ended" {
				t.Fatalf("the call ended: %s", e.Call.Reason)
			}
			words := strings.Join(e.Call.Trouble, " ")
			if says := strings.Contains(words, "The camera or microphone of this device does not work: ffmpeg ended by itself."); says {
				said = true
				t.Log(words)
			} else if said {
				return
			}
		case <-deadline:
			t.Fatalf("no event; it was said: %v", said)
		}
	}
}
