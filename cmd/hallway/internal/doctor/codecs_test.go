package doctor

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/cmd/hallway/internal/config"
	"github.com/hallway-home/hallway/sessions/media"
)

// bin makes a folder of programs and makes it the only one.
func bin(t *testing.T, programs map[string]string) {
	dir := t.TempDir()
	for name, script := range programs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
}

func line(checks []api.Check, name string) api.Check {
	i := slices.IndexFunc(checks, func(c api.Check) bool { return c.Name == name })
	if i < 0 {
		return api.Check{}
	}
	return checks[i]
}

// The doctor names the encoders that work on this machine, hardware before software, and the
// decoders of what shows; and what to install where none works.
func TestDoctorNamesEncodersAndDecoders(t *testing.T) {
	c := config.Default()
	c.Class, c.Data, c.Source.Pipeline, c.Sink.Pipeline = "tv", t.TempDir(), "test-picture", "screen"
	makes := "case \"$*\" in %s) printf '%%0300d' 7; exit 0;; esac; echo 'Unknown encoder' >&2; exit 1\n"
	for _, x := range []struct {
		name, ffmpeg, ffplay string
		want                 map[string]string // line: level and words
	}{
		{"hardware", strings.ReplaceAll(makes, "%s", "*h264_v4l2m2m*|*libx264*|*libopus*"), "echo ' VFS..D h264 H.264'; echo ' V..... h264_v4l2m2m V4L2 (codec h264)'; echo ' A....D libopus Opus (codec opus)'", map[string]string{
			"picture encoder": "ok H264 by h264_v4l2m2m (hardware); nothing here makes VP8, H265",
			"sound encoder":   "ok opus by libopus; nothing here makes G722, PCMU, PCMA",
			"picture decoder": "warn H264 by h264 (software); nothing here takes VP8, H265",
			"sound decoder":   "warn opus by libopus; nothing here takes G722, PCMU, PCMA",
		}},
		{"nothing", "echo 'Unknown encoder' >&2; exit 1", "exit 0", map[string]string{
			"picture encoder": "fail this device can send no picture",
			"sound encoder":   "fail this device can send no sound",
			"picture decoder": "fail ffplay decodes no picture",
			"sound decoder":   "fail ffplay decodes no sound",
		}},
	} {
		bin(t, map[string]string{"ffmpeg": strings.ReplaceAll(x.ffmpeg, "%%", "%"), "ffplay": x.ffplay})
		got := codecs(t.Context(), c)
		for name, want := range x.want {
			k := line(got, name)
			if s := k.Level + " " + k.Words; !strings.HasPrefix(s, want) || k.Level != "ok" && !strings.Contains(k.Advice, "install") {
				t.Errorf("%s: %s is %q (%s), want %q", x.name, name, s, k.Advice, want)
			}
		}
	}
}

// What the real programs of this machine say.
func TestDoctorWithRealPrograms(t *testing.T) {
	for _, program := range []string{"ffplay", "gst-launch-1.0"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("REQUIRE_PEERS") == "1" {
				t.Fatalf("%s is missing: make deps", program)
			}
			t.Skipf("SKIPPED: %s is missing: make deps", program)
		}
		found, known := media.Decoders(t.Context(), program, []string{"H264", "VP8", "opus", "PCMU"})
		if !known || len(found) != 4 {
			t.Fatalf("%s: %v, %v", program, found, known)
		}
		for _, d := range found {
			t.Logf("%s: %+v", program, d)
			if d.Name == "" {
				t.Errorf("%s has no decoder for %s", program, d.Codec)
			}
		}
	}
	if _, known := media.Decoders(t.Context(), "vlc", []string{"H264"}); known {
		t.Error("a program that cannot be asked is known")
	}
}
