package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/cmd/hallway/internal/doctor"
)

func run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Main(append(args, "--data", t.TempDir()), Build{Version: "test", Commit: "0123abc"}, &out, &errs)
	return out.String(), errs.String(), code
}

// A command line that makes no sense has its own exit code and says what to do.
func TestCommandLineThatMakesNoSense(t *testing.T) {
	for _, line := range []string{
		"nonsense", "devices extra", "devices --bogus", "call", "call a b", "doctor a b c", "home create", "home rename x", "config check x",
		"add", "answer a b", "hold a b", "video", "video maybe", "up extra", "pair x",
	} {
		out, errs, code := run(t, strings.Fields(line)...)
		if code != ExitUsage || out != "" || !strings.Contains(errs, "usage:") && !strings.Contains(errs, "--help") {
			t.Errorf("hallway %s: exit %d: %s%s", line, code, out, errs)
		}
	}
	_, errs, code := run(t, "nonsense", "--json")
	var e struct {
		Error string
		Exit  int
	}
	if err := json.Unmarshal([]byte(errs), &e); err != nil || code != e.Exit || e.Exit != ExitUsage {
		t.Errorf("exit %d: %s", code, errs)
	}
}

// Every command that a person can run answers in JSON where it needs no agent, and where
// it needs one says how to start it.
func TestEveryCommandWithoutAnAgent(t *testing.T) {
	for _, line := range []string{"profiles", "config show", "config check", "config sample", "version"} {
		out, errs, code := run(t, append(strings.Fields(line), "--json")...)
		if code != ExitOK || !json.Valid([]byte(out)) {
			t.Errorf("hallway %s: exit %d: %s%s", line, code, out, errs)
		}
		if out, _, code := run(t, strings.Fields(line)...); code != ExitOK || out == "" {
			t.Errorf("hallway %s: exit %d: %s", line, code, out)
		}
	}
	for _, line := range []string{
		"devices", "devices --watch", "rooms", "resolve x", "call x", "answer", "decline", "hangup", "hold", "resume", "mute", "unmute", "video on", "video off x", "calls", "calls --watch", "pair", "add 123123123",
		"invite", "doctor x", "doctor x y", "home create H", "home show", "home remove x", "home rename x y", "home room x", "home group x y", "home person x y",
	} {
		_, errs, code := run(t, append(strings.Fields(line), "--json")...)
		if code != ExitNoAgent || !strings.Contains(errs, "hallway up") || !json.Valid([]byte(errs)) {
			t.Errorf("hallway %s: exit %d: %s", line, code, errs)
		}
	}
}

// documented reads the rows of a table in the docs: the first cell and the exit code in the last.
func documented(t *testing.T, head string) map[string]int {
	t.Helper()
	raw, err := os.ReadFile("../../../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(raw), head)
	if !ok {
		t.Fatalf("docs/cli.md has no table %q", head)
	}
	text, _, _ = strings.Cut(text, "\n\n")
	out := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^\| (\w+) \|(?:.*\| ?(\d*) ?\|)?`).FindAllStringSubmatch(text, -1) {
		code, _ := strconv.Atoi(m[2])
		out[m[1]] = code
	}
	return out
}

func TestExitCodesAreDocumented(t *testing.T) {
	docs := documented(t, "| code | meaning |")
	for code := ExitOK; code <= ExitNoCodec; code++ {
		if _, ok := docs[fmt.Sprint(code)]; !ok {
			t.Errorf("exit code %d is not in docs/cli.md", code)
		}
	}
	if len(docs) != ExitNoCodec+1 {
		t.Errorf("docs/cli.md lists %v", docs)
	}
	legs := documented(t, "| leg | asks | exit code |")
	var names []string
	for _, l := range doctor.Diagnose(doctor.Facts{To: "x", Name: "X", Devices: []doctor.Callee{{Foreign: true}}}).Legs {
		names = append(names, l.Name)
		want := exitOfLeg(l.Name)
		if slices.Contains([]string{doctor.LegSighting, doctor.LegRoster}, l.Name) {
			want = 0 // it only warns
		}
		if code, ok := legs[l.Name]; !ok || code != want {
			t.Errorf("leg %s: docs/cli.md says %d (%v), it is %d", l.Name, code, ok, want)
		}
	}
	if len(legs) != len(names) {
		t.Errorf("docs/cli.md has the legs %v, the doctor %v", legs, names)
	}
}

func TestDiagnosisTable(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out}
	a.checksTable("LEG", []api.Check{{Name: "port", Level: "fail", Words: "no answer", Advice: "switch it on"}, {Name: "tls", Level: "skip", Words: "because"}})
	want := "           LEG   FOUND\nfails      port  no answer; switch it on\nnot tried  tls   because\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	out.Reset()
	a.checksTable("LEG", []api.Check{{Name: "port", Device: "tv", Level: "ok", Words: "connected"}})
	if want := "    LEG   DEVICE  FOUND\nok  port  tv      connected\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
