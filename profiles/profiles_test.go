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
	const good = "name: cam, kind: source, command: [ffmpeg], video: {codecs: [VP8], output: ['rtp://127.0.0.1:{{.Port}}']}"
	p, err := Parse("own.yaml", profile(good))
	if err != nil || p.Pipelines[0].Video.Codecs[0] != "VP8" {
		t.Fatal(p, err)
	}
	for name, c := range map[string]struct{ pipeline, want string }{
		"unknown key":     {good + ", shell: true", "[6:"},
		"no port":         {strings.Replace(good, "{{.Port}}", "5004", 1), "{{.Port}}"},
		"no codec":        {strings.Replace(good, "codecs: [VP8], ", "", 1), "names its codecs"},
		"codec unknown":   {strings.Replace(good, "VP8", "VP9", 1), "there are H264, VP8, H265"},
		"codec elsewhere": {strings.Replace(good, "VP8", "opus", 1), "no video codec"},
		"two, one way":    {strings.Replace(good, "[VP8]", "[VP8, H264]", 1), "{{.Encoder}}"},
		"no command":      {"name: cam, kind: source", "needs a name"},
		"deaf sink":       {"name: out, kind: sink, command: [ffplay]", "{{.SDP}}"},
		"other kind":      {strings.Replace(good, "source", "filter", 1), "kind"},
		"silent source":   {"name: s, kind: source, command: ['true']", "under video or audio"},
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
		want := "opus G722 PCMU PCMA H264 VP8 H265"
		if class == "speaker" {
			want = "opus G722 PCMU PCMA"
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %s, want %s", class, got, want)
		}
	}
}

// A device that takes more codecs than its source can make sends only where the other
// device takes one that it can make.
func TestMatchKnowsWhatASourceCanMake(t *testing.T) {
	tv, phone := caps(t, "tv"), caps(t, "phone")
	phone.Audio.Codecs = phone.Audio.Codecs[2:] // G.711 only
	for _, c := range []struct {
		makes []string
		want  Direction
	}{{nil, SendRecv}, {[]string{"opus", "pcmu"}, SendRecv}, {[]string{"opus"}, RecvOnly}} {
		tv.Audio.Makes = c.makes
		m, err := Match(tv, phone)
		if err != nil || m.Audio.Direction != c.want || m.Audio.Codecs[0].Name != "PCMU" {
			t.Errorf("the caller makes %v: %+v, %v", c.makes, m.Audio, err)
		}
		back, err := Match(phone, tv)
		want := map[Direction]Direction{SendRecv: SendRecv, RecvOnly: SendOnly}[c.want]
		if err != nil || back.Audio.Direction != want {
			t.Errorf("the called device makes %v: %+v, %v", c.makes, back.Audio, err)
		}
		if got := m.Caller().Audio.Makes; len(got) != len(c.makes) {
			t.Errorf("the offer forgets what is made: %v", got)
		}
	}
	tv.Audio.Makes, tv.Video, phone.Audio.Direction = []string{"opus"}, Medium{Direction: Inactive}, RecvOnly
	if _, err := Match(tv, phone); !errors.Is(err, ErrNothingInCommon) {
		t.Errorf("nothing can be sent, and it matched: %v", err)
	}
}

func TestEveryCodecOfAPipelineHasAnEncoder(t *testing.T) {
	encoders, err := Encoders()
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]bool{}
	software := map[string]bool{}
	for _, e := range encoders {
		key := e.Program + " " + e.Codec
		if e.Hardware && software[key] {
			t.Errorf("%s is hardware and comes after software", e.Name)
		}
		has[key], software[key] = true, software[key] || !e.Hardware
	}
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		for _, l := range p.Pipelines {
			for _, kind := range Kinds() {
				if s := l.Of(kind); s != nil && l.Kind == SourcePipeline {
					for _, c := range s.Codecs {
						if !has[l.Command[0]+" "+c] {
							t.Errorf("%s %s: no encoder of %s makes %s", p.Class, l.Name, l.Command[0], c)
						}
					}
				}
			}
		}
	}
}
