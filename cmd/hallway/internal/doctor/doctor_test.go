package doctor

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/cmd/hallway/internal/config"
)

// Each local check says what is wrong in one sentence, with what to do.
func TestLocalChecks(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := free.Addr().String()
	_ = free.Close()
	good := config.Default()
	good.Data, good.Listen, good.Interfaces = t.TempDir(), closed, []string{"lo"}
	find := func(c config.Config, name string) (level, words string) {
		t.Helper()
		for _, k := range Local(t.Context(), c, false) {
			if k.Name == name {
				if k.Level != "ok" && k.Advice == "" {
					t.Errorf("%s: no next step: %+v", name, k)
				}
				return k.Level, k.Words
			}
		}
		return "none", ""
	}
	for _, c := range []struct {
		name   string
		change func(*config.Config)
		level  string
		words  string
	}{
		{"interfaces", func(*config.Config) {}, "ok", "lo"},
		{"interfaces", func(c *config.Config) { c.Interfaces = []string{"nope0"} }, "fail", "no interface nope0"},
		{"port", func(*config.Config) {}, "ok", "is free"},
		{"port", func(c *config.Config) { c.Listen = ln.Addr().String() }, "fail", "cannot be used"},
		{"disk", func(c *config.Config) { c.Data = filepath.Join(c.Data, "a", "b") }, "ok", "can be written"},
		{"disk", func(c *config.Config) { c.Data = "/proc/hallway" }, "fail", "cannot write in /proc"},
		{"peers", func(*config.Config) {}, "none", ""},
		{"peers", func(c *config.Config) { c.Peers = []string{ln.Addr().String()} }, "ok", "answers"},
		{"peers", func(c *config.Config) { c.Peers = []string{closed} }, "warn", "does not answer"},
		{"source", func(c *config.Config) { c.Source.Clip = "/nowhere.mkv" }, "fail", "cannot be read"},
	} {
		conf := good
		c.change(&conf)
		if level, words := find(conf, c.name); level != c.level || !strings.Contains(words, c.words) {
			t.Errorf("%s: %s %q; want %s %q", c.name, level, words, c.level, c.words)
		}
	}
	if k := clock(time.Unix(0, 0)); k.Level != "warn" || k.Advice == "" {
		t.Errorf("in 1970: %+v", k)
	}
}
