package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func none(string) (string, bool) { return "", false }

func TestSampleShowsTheDefaults(t *testing.T) {
	var lines []string
	for l := range strings.Lines(Sample) {
		if strings.HasPrefix(l, "#") && !strings.HasPrefix(l, "# ") {
			lines = append(lines, l[1:])
		}
	}
	var got Config
	if err := Decode("sample", []byte(strings.Join(lines, "")), &got); err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Data = "/var/lib/hallway"
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("the sample says %+v, the defaults are %+v", got, want)
	}
	if err := got.Check(); err != nil {
		t.Fatal(err)
	}
	n := reflect.TypeOf(Config{}).NumField() - 1 // without File
	if len(lines) != n {
		t.Fatalf("the sample has %d keys, the configuration %d", len(lines), n)
	}
}

func TestLayers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hallway.yaml")
	if err := os.WriteFile(file, []byte("name: From File\nclass: tv\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file, func(k string) (string, bool) { return "From Env", k == "HALLWAY_NAME" })
	if err != nil || c.Name != "From Env" || c.Class != "tv" || c.Listen != ":5061" {
		t.Fatalf("%+v %v", c, err)
	}
}

func TestOneProtocolIsSwitchedOffAlone(t *testing.T) {
	c := Default()
	if err := Decode("x", []byte("discovery: {ssdp: false}\n"), &c); err != nil {
		t.Fatal(err)
	}
	if want := (Discovery{MDNS: true, WSD: true}); c.Discovery != want {
		t.Errorf("%+v", c.Discovery)
	}
}

func TestWrongConfigurationIsOneClearSentence(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":      {"name: x\ncolour: red\n", "[2:1]"},
		"wrong type":       {"names-on-lan: perhaps\n", "[1:"},
		"no such protocol": {"discovery: {bonjour: true}\n", "[1:"},
		"unknown class":    {"class: toaster\n", "toaster"},
		"bad answer":       {"auto-answer: maybe\n", "profile, yes, no"},
		"two sources":      {"source: {clip: a, pipeline: b}\n", "not both"},
		"no such source":   {"source: {pipeline: nope}\n", "test-picture"},
	} {
		file := filepath.Join(t.TempDir(), "hallway.yaml")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := Load(file, none)
		if err == nil {
			err = cfg.Check()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Load("/nowhere/hallway.yaml", none); err == nil {
		t.Error("a missing file that was named is no error")
	}
}
