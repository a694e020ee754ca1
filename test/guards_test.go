package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// guard is a check that must have a test which fails without it. In the code it is an
// `if` on one line that ends with `// check: <name>`.
type guard struct {
	name string
	pkg  string // whose tests must turn red
	run  string // which of them
}

func guards() []guard {
	return []guard{
		{"record signature", "devices/records", "TestRecord"},
		{"record size", "devices/records", "TestRecord"},
		{"binding signature", "devices/records", "TestBinding"},
		{"blob hash", "devices/overlay", "TestBlobHash"},
		{"roster signature", "devices/trust", "."},
		{"checkpoint root", "devices/trust", "OnlyTheCode"},
		{"code limit", "devices/pairing", "."},
		{"on-link source", "discovery/mdns", "."},
		{"on-link source", "discovery/ssdp", "ThreeTimes"},
		{"three times the query", "discovery/ssdp", "ThreeTimes"},
		{"LOCATION of its sender", "discovery/ssdp", "Location"},
		{"on-link source", "discovery/wsd", "OnlyTheLink"},
		{"XAddr of its sender", "discovery/wsd", "OnlyTheLink"},
		{"answer to our probe", "discovery/wsd", "Conformance"},
		{"From against TLS peer", "sessions", "."},
		{"redirect to another host", "sessions/media/rtsp", "MisbehavingCameras/all/leads_to"},
		{"fingerprints of a phone", "sessions", "PersonSpeaks"},
		{"answer's fingerprint", "sessions", "AnswerIsThatOf"},
		{"phone of the home", "sessions/edge", "WhoGetsAFlow"},
		{"origin of the page", "sessions/edge", "WhoGetsAFlow"},
		{"flows of a phone", "sessions/edge", "AreBounded"},
		{"person of a phone", "sessions/edge", "Signed|Screened"},
		{"binding of this run", "sessions/edge", "OnlySigned"},
		{"signed fingerprints", "sessions/edge", "Screened"},
		{"phone's dialog", "sessions/edge", "FirstAnswer"},
		{"quiet phone", "sessions/edge", "QuietPhone"},
		{"do not disturb", "sessions", "DoNotDisturb"},
		{"push service on the list", "cmd/hallway/internal/push", "OnlyToTheList"},
		{"caller's own picture", "sessions", "PreviewOf"},
		{"call of a preview", "sessions", "ShowsItsCamera"},
		{"page of a preview", "sessions/edge", "PictureOfARingingCall"},
		{"camera of an owner", "cmd/hallway/internal/agent", "CameraOfAnOwner"},
		{"keepalive period", "sessions/media/rtsp", "MisbehavingCameras/all/a_keepalive"},
		{"certificate of a camera", "sessions/media/rtsp", "CertificateOfACamera"},
		{"TLS wherever a redirect leads", "sessions/media/rtsp", "TLSIsNotLeft"},
		{"own camera", "sessions", "PictureJoins"},
		{"packet twice", "sessions/media", "Holes"},
		{"number twice", "sessions/media", "Number|Holes"},
		{"authority for owners", "cmd/hallway/internal/agent", "AuthorityIsForOwners"},
		{"phone secret", "devices/pairing", "Proof"},
		{"least access", "cmd/hallway/internal/api", "Access"},
		{"Host of the origin", "cmd/hallway/internal/web", "A34"},
		{"Origin", "cmd/hallway/internal/web", "A34"},
		{"CSRF token", "cmd/hallway/internal/web", "A34"},
		{"login signature", "cmd/hallway/internal/web", "LoginByTheKey"},
		{"challenge once", "cmd/hallway/internal/web", "LoginByTheKey"},
		{"removed phone", "cmd/hallway/internal/web", "A9|Guest"},
		{"last day", "cmd/hallway/internal/web", "A9|Guest"},
		{"signature of a wish", "cmd/hallway/internal/web", "Wish"},
		{"what may be carried", "cmd/hallway/internal/api", "Carried"},
		{"a person confirms", "cmd/hallway/internal/api", "Carried"},
		{"fresh wish", "cmd/hallway/internal/agent", "Wish"},
		{"phone of a wish", "cmd/hallway/internal/agent", "Wish"},
		{"wish once", "cmd/hallway/internal/agent", "Wish"},
		{"payload type of a repair", "sessions/rtc", "PayloadType"},
	}
}

type site struct {
	file string
	line int // from 0
}

// sitesOf finds the marked lines of a check.
func sitesOf(t *testing.T, pkg, name string) []site {
	t.Helper()
	var out []site
	files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pkg), "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for i, l := range strings.Split(string(b), "\n") {
			if strings.HasSuffix(l, "// check: "+name) && !strings.HasSuffix(f, "_test.go") {
				out = append(out, site{f, i})
			}
		}
	}
	return out
}

var condition = regexp.MustCompile(`^(\s*)if (.*; )?(.+) \{ // check: .*$`)

// disarm makes the marked condition never true, and leaves everything it names in use.
func disarm(line string) (string, bool) {
	m := condition.FindStringSubmatch(line)
	if m == nil {
		return "", false
	}
	return m[1] + "if " + m[2] + "false && (" + m[3] + ") {", true
}

// Taking any of these checks out of the code turns a test of its package red. The code
// is replaced by `go test -overlay`; the tree stays as it is.
func TestEveryCheckIsGuarded(t *testing.T) {
	for _, g := range guards() {
		t.Run(strings.ReplaceAll(g.name, " ", "_"), func(t *testing.T) {
			t.Parallel() // each compiles and runs one package
			sites := sitesOf(t, g.pkg, g.name)
			if len(sites) == 0 {
				t.Fatalf("no line in %s ends with \"// check: %s\"", g.pkg, g.name)
			}
			for _, s := range sites {
				red(t, g, s)
			}
		})
	}
}

func red(t *testing.T, g guard, s site) {
	t.Helper()
	where := path.Join(g.pkg, filepath.Base(s.file))
	b, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	without, ok := disarm(lines[s.line])
	if !ok {
		t.Fatalf("%s:%d is not an `if` on one line", where, s.line+1)
	}
	lines[s.line] = without
	dir := t.TempDir()
	changed := filepath.Join(dir, "changed.go")
	if err := os.WriteFile(changed, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	abs, err := filepath.Abs(s.file)
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{abs: changed}})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-overlay", list, "-vet=off", "-count=1", "-failfast", "-timeout", "2m", "-run", g.run, "./"+g.pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Errorf("%s:%d: no test of %s notices that the check of the %s is gone", where, s.line+1, g.pkg, g.name)
		return
	}
	if first := regexp.MustCompile(`--- FAIL: (\S+)`).FindSubmatch(out); first != nil {
		t.Logf("%s:%d: without the check of the %s, %s fails", where, s.line+1, g.name, first[1])
		return
	}
	// A red build is not a red test.
	t.Errorf("%s:%d: the tests ended without a failed one: %s", where, s.line+1, out)
}
