package profiles

import (
	"errors"
	"strings"
	"testing"
)

func TestEveryProfileLoads(t *testing.T) {
	all, err := All()
	if err != nil || len(all) != 7 {
		t.Fatalf("%d profiles, %v", len(all), err)
	}
	for _, p := range all {
		if got, err := ForClass(p.Class); err != nil || got.Title != p.Title {
			t.Errorf("%s: %v", p.Class, err)
		}
	}
	if _, err := ForClass("toaster"); err == nil || !strings.Contains(err.Error(), "speaker") {
		t.Errorf("an unknown class gave %v", err)
	}
}

func TestParseNamesFileAndLine(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown key": {"class: tv\ntitle: TV\ncolour: red\n", "[3:1]"},
		"wrong type":  {"class: tv\ntitle: TV\nbehaviour: {max-calls: many}\n", "[3:"},
		"direction":   {"class: tv\ntitle: TV\ncapabilities: {audio: {direction: up}, video: {direction: inactive}}\n", "direction"},
	} {
		_, err := Parse("x.yaml", []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "x.yaml") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func caps(t *testing.T, class string) Capabilities {
	t.Helper()
	p, err := ForClass(class)
	if err != nil {
		t.Fatal(err)
	}
	return p.Capabilities
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		from, to     string
		audio, video Direction
	}{
		{"tv", "panel", SendRecv, SendRecv},
		{"tv", "speaker", SendRecv, Inactive},
		{"tv", "camera", RecvOnly, RecvOnly},
		{"tv", "stb", SendOnly, SendOnly},
		{"camera", "stb", SendOnly, SendOnly},
		{"doorbell", "panel", SendRecv, SendOnly},
	} {
		m, err := Match(caps(t, c.from), caps(t, c.to))
		if err != nil || m.Audio.Direction != c.audio || m.Video.Direction != c.video {
			t.Errorf("%s calls %s: %+v %v", c.from, c.to, m, err)
		}
	}
	if _, err := Match(caps(t, "stb"), caps(t, "stb")); !errors.Is(err, ErrNothingInCommon) {
		t.Errorf("two receivers matched: %v", err)
	}
	a, b := caps(t, "tv"), caps(t, "tv")
	a.Audio.Codecs, b.Audio.Codecs = a.Audio.Codecs[:1], b.Audio.Codecs[2:]
	a.Video.Codecs = []Codec{{Name: "H264", ClockRate: 90000, Fmtp: "packetization-mode=0"}}
	b.Video.Codecs = b.Video.Codecs[:1]
	if _, err := Match(a, b); !errors.Is(err, ErrNothingInCommon) {
		t.Errorf("different codecs matched: %v", err)
	}
}

func TestPipelinesFitTheirCommands(t *testing.T) {
	profile := func(pipeline string) []byte {
		return []byte("class: tv\ntitle: TV\ncapabilities: {audio: {direction: inactive}, video: {direction: inactive}}\n" +
			"behaviour: {ring-timeout: 45s, max-calls: 1}\npipelines:\n  - {" + pipeline + "}\n")
	}
	const good = "name: cam, kind: source, command: [ffmpeg, 'rtp://127.0.0.1:{{.VideoPort}}'], video: {name: VP8, clock: 90000}"
	p, err := Parse("own.yaml", profile(good))
	if err != nil || p.Pipelines[0].Video.Name != "VP8" {
		t.Fatal(p, err)
	}
	for name, c := range map[string]struct{ pipeline, want string }{
		"unknown key":   {good + ", shell: true", "[6:"},
		"no codec":      {strings.Replace(good, "video:", "audio:", 1), "VideoPort"},
		"no command":    {"name: cam, kind: source", "needs a name"},
		"deaf sink":     {"name: out, kind: sink, command: [ffplay]", "{{.SDP}}"},
		"other kind":    {strings.Replace(good, "source", "filter", 1), "kind"},
		"silent source": {"name: s, kind: source, command: ['true']", "under video or audio"},
	} {
		_, err := Parse("own.yaml", profile(c.pipeline))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "own.yaml") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCodecsComeInTheOrderOfTheHouse(t *testing.T) {
	for _, class := range []string{"tv", "camera", "doorbell", "stb", "speaker", "panel", "phone"} {
		c := caps(t, class)
		var names []string
		for _, x := range append(append([]Codec{}, c.Audio.Codecs...), c.Video.Codecs...) {
			names = append(names, x.Name)
		}
		want := "opus G722 PCMU PCMA H264 VP8"
		if class == "speaker" {
			want = "opus G722 PCMU PCMA"
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %s, want %s", class, got, want)
		}
	}
}
