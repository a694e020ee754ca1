package media

import (
	"strings"
	"testing"
)

func TestAdviceFitsTheLastWords(t *testing.T) {
	for _, c := range []struct {
		words   string
		display bool
		want    string
	}{
		{"Could not initialize SDL - No available video device", false, "DISPLAY"},
		{"ERROR: from element autovideosink0: Could not open X display", true, "screen does not answer"},
		{"cannot open audio device default (Permission denied)", true, "groups video and audio"},
		{"/dev/video0: Device or resource busy", true, "Another program"},
		{"/dev/video0: No such file or directory", true, "plugged in"},
		{"ALSA lib pcm.c: Unknown PCM default", true, "sound server"},
		{"WARNING: erroneous pipeline: no element \"x264enc\"", true, "what to install"},
		{"segmentation fault", true, "another pipeline"},
	} {
		if got := advice(c.words, c.display); !strings.Contains(got, c.want) {
			t.Errorf("%q: %q", c.words, got)
		}
	}
}

func TestProgramsAreToldTheirScreen(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"DISPLAY", ":0", "GST_PLUGIN_FEATURE_RANK=kmssink:1 SDL_VIDEODRIVER=x11"}, {"WAYLAND_DISPLAY", "wayland-0", "GST_PLUGIN_FEATURE_RANK=kmssink:1 SDL_VIDEODRIVER=wayland"}, {"SDL_VIDEODRIVER", "offscreen", ""},
	} {
		got := screenEnv(func(name string) string {
			if name == c.name {
				return c.value
			}
			return ""
		})
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}
