package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// pipewire is a PipeWire of the test's own: session manager, and the door that speaks
// PulseAudio's protocol, with a null sink as default. env is what makes programs use it.
func pipewire(t testing.TB, n *node) (server string, env map[string]string) {
	t.Helper()
	needs(t, "pipewire", "wireplumber", "pipewire-pulse", "dbus-daemon", "pactl", "ffmpeg")
	dir := t.TempDir()
	env = map[string]string{"XDG_RUNTIME_DIR": dir, "DBUS_SESSION_BUS_ADDRESS": "unix:path=" + dir + "/bus", "PULSE_SERVER": "unix:" + dir + "/pulse/native"}
	list := []string{"HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "XDG_STATE_HOME=" + dir}
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	exists := func(what, file string) {
		n.eventually(20*time.Second, what, func() bool { _, err := os.Stat(file); return err == nil })
	}
	service(t, n, list, "dbus-daemon", "--session", "--nofork", "--address=unix:path="+dir+"/bus")
	exists("the bus is there", dir+"/bus")
	service(t, n, list, "pipewire")
	exists("PipeWire is there", dir+"/pipewire-0")
	service(t, n, list, "wireplumber")
	service(t, n, list, "pipewire-pulse")
	ask := func(args ...string) bool {
		cmd := exec.Command("pactl", args...)
		cmd.Env = append(os.Environ(), list...)
		return cmd.Run() == nil
	}
	n.eventually(20*time.Second, "PipeWire answers", func() bool { return ask("info") })
	if !ask("load-module", "module-null-sink", "sink_name=out") {
		t.Fatal("PipeWire makes no null sink")
	}
	n.eventually(20*time.Second, "the null sink is the default", func() bool { return ask("set-default-sink", "out") && ask("set-default-source", "out.monitor") })
	return env["PULSE_SERVER"], env
}

// A microphone that PipeWire gives to GStreamer, and a loudspeaker that ffplay plays on by
// PipeWire's own protocol: the tone goes through the call.
func TestA16_SoundThroughPipeWire(t *testing.T) {
	needs(t, "ffplay", "gst-launch-1.0")
	if exec.Command("gst-inspect-1.0", "pipewiresrc").Run() != nil {
		missing(t, "GStreamer has no pipewiresrc: gstreamer1.0-pipewire")
	}
	l := newLab(t)
	one := newNode(t, l, "One", "speaker", "", "--source-pipeline", "pipewire-microphone")
	mic, env := pipewire(t, one)
	service(t, one, nil, "ffmpeg", "-v", "error", "-re", "-f", "lavfi", "-i", "sine=frequency=700:sample_rate=48000", "-f", "pulse", "-server", mic, "-device", "out", "tone")
	for k, v := range env {
		t.Setenv(k, v)
	}
	one.start().found()
	two := newNode(t, l, "Two", "speaker", "", "--sink-pipeline", "loudspeaker")
	loud, env := pipewire(t, two)
	for k, v := range env {
		t.Setenv(k, v)
	}
	t.Setenv("SDL_AUDIODRIVER", "pipewire")
	one.invite(two)
	c := ask[call](two, "call", "one", "--detach")
	one.incoming()
	one.run("answer", c.ID)
	two.eventually(20*time.Second, "the tone comes out of the loudspeaker", func() bool {
		f, share := tone(t, loud, 300, 440, 700, 1000)
		t.Logf("%.0f Hz with %.0f %% of the energy", f, 100*share)
		return f == 700 && share > 0.25
	})
	two.run("hangup", c.ID)
	two.eventually(5*time.Second, "it is silent", func() bool { _, share := tone(t, loud, 700); return share < 0.01 })
}

// alsa is a sound card of ALSA's own plug-ins: what is played arrives in a file, what is
// recorded comes from one. Its clock is a null device of PulseAudio, since ALSA's `null` has
// none and would play as fast as the processor can.
func alsa(t testing.TB, n *node, spoken string) (heard string) {
	t.Helper()
	if m, _ := filepath.Glob("/usr/lib/*/alsa-lib/libasound_module_pcm_pulse.so"); len(m) == 0 {
		missing(t, "ALSA has no plug-in for PulseAudio: libasound2-plugins")
	}
	server := pulse(t, n, "out")
	dir := t.TempDir()
	heard = filepath.Join(dir, "heard.raw")
	in := ""
	if spoken != "" {
		in = fmt.Sprintf("infile %q", spoken)
	}
	conf := fmt.Sprintf(`</usr/share/alsa/alsa.conf>
pcm.card { type pulse server %q }
pcm.filed { type file slave.pcm card file %q %s format raw }
pcm.!default { type plug slave { pcm filed rate 48000 channels 2 format S16_LE } }
`, server, heard, in)
	file := filepath.Join(dir, "asound.conf")
	must(t, os.WriteFile(file, []byte(conf), 0o600))
	t.Setenv("ALSA_CONFIG_PATH", file)
	return heard
}

// The last second of what was played on the card, as tone measures it.
func heardTone(t testing.TB, file string, candidates ...float64) (best, share float64) {
	t.Helper()
	const second = 48000 * 2 * 2
	b, err := os.ReadFile(file)
	if err != nil || len(b) < second {
		return 0, 0
	}
	b = b[(len(b)-second)&^3:]
	var samples []float64
	for ; len(b) >= 4; b = b[4:] {
		samples = append(samples, float64(int16(uint16(b[0])|uint16(b[1])<<8)))
	}
	return strongest(samples, 48000, candidates)
}

// A call between two devices whose microphone and loudspeaker are ALSA's: the 700 Hz that one
// card's file speaks are in the file that the other card plays to.
func TestA16_SoundThroughALSA(t *testing.T) {
	needs(t, "ffplay", "ffmpeg")
	l := newLab(t)
	one := newNode(t, l, "One", "speaker", "", "--source-pipeline", "alsa-microphone")
	spoken := filepath.Join(t.TempDir(), "spoken.raw")
	out, err := exec.Command("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=frequency=700:sample_rate=48000:duration=120", "-ac", "2", "-f", "s16le", spoken).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	alsa(t, one, spoken)
	one.start().found()
	two := newNode(t, l, "Two", "speaker", "", "--sink-pipeline", "loudspeaker")
	heard := alsa(t, two, "")
	t.Setenv("SDL_AUDIODRIVER", "alsa")
	one.invite(two)
	c := ask[call](two, "call", "one", "--detach")
	one.incoming()
	if _, err := os.Stat(heard); err == nil {
		t.Error("the card was opened before anybody answered")
	}
	one.run("answer", c.ID)
	two.eventually(20*time.Second, "the tone is in the file", func() bool {
		f, share := heardTone(t, heard, 300, 440, 700, 1000)
		return f == 700 && share > 0.25
	})
	f, share := heardTone(t, heard, 300, 440, 700, 1000)
	t.Logf("%.0f Hz with %.0f %% of the energy", f, 100*share)
	two.run("hangup", c.ID)
	two.eventually(5*time.Second, "the card is closed", func() bool {
		before, err := os.Stat(heard)
		must(t, err)
		time.Sleep(100 * time.Millisecond) // the card writes each 20 ms
		after, err := os.Stat(heard)
		must(t, err)
		return before.Size() == after.Size()
	})
}
