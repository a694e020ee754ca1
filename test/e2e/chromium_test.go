package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/hallway-home/hallway/test/netlab"
)

// driver prepares the program that drives Chromium, once.
var driver = sync.OnceValue(func() error {
	for _, p := range []string{"node", "npm", "chromium", "certutil"} {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%s is not installed; scripts/deps installs it", p)
		}
	}
	if _, err := os.Stat("browser/node_modules/playwright-core/package.json"); err == nil {
		return nil
	}
	cmd := exec.Command("npm", "ci", "--ignore-scripts") //nolint:noctx // once, and it ends by itself
	cmd.Dir = "browser"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("playwright-core could not be installed: %w: %s", err, out)
	}
	return nil
})

// browser is one Chromium with a fresh profile, on a host of its own.
type browser struct {
	t     testing.TB
	in    io.WriteCloser
	lines *bufio.Scanner
	last  int
}

// newBrowser starts Chromium on a host. There is no mDNS resolver in a namespace, so the
// home's name is mapped to the node `at` by --host-resolver-rules, as a resolver would; the
// certificate is still checked against the name. ca (PEM, may be nil) goes into the
// profile's NSS database, as a person's import would.
func newBrowser(t testing.TB, h *netlab.Host, appHost, at string, ca []byte, args ...string) *browser {
	t.Helper()
	if err := driver(); err != nil {
		missing(t, err.Error())
	}
	dir := t.TempDir()
	if ca != nil {
		importCA(t, dir, ca)
	}
	args = append([]string{"browser/drive.mjs", filepath.Join(dir, "profile"), "--host-resolver-rules=MAP " + strings.TrimSpace(appHost+" "+at)}, args...)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := h.Command(ctx, "node", args...)
	cmd.Env = append(os.Environ(), "HOME="+dir)
	var noise strings.Builder
	cmd.Stderr = &noise
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, in: in, lines: bufio.NewScanner(out)}
	b.lines.Buffer(nil, 1<<22)
	t.Cleanup(func() {
		_, _ = io.WriteString(in, `{"do":"close"}`+"\n")
		_ = in.Close()
		for b.lines.Scan() { // until it has ended: the profile's folder is removed next
		}
		_ = cmd.Wait()
		cancel()
		if t.Failed() {
			t.Log("--- browser\n" + noise.String())
		}
	})
	if !b.lines.Scan() {
		t.Fatal("Chromium did not start")
	}
	return b
}

func importCA(t testing.TB, home string, ca []byte) {
	t.Helper()
	db := filepath.Join(home, ".pki", "nssdb")
	if err := os.MkdirAll(db, 0o700); err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode(ca); block == nil {
		t.Fatalf("no certificate in %q", ca)
	}
	file := filepath.Join(home, "ca.pem")
	if err := os.WriteFile(file, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-N", "--empty-password"}, {"-A", "-n", "hallway", "-t", "C,,", "-i", file}} {
		cmd := exec.Command("certutil", append([]string{"-d", "sql:" + db}, args...)...) //nolint:noctx // ends by itself
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("certutil: %v: %s", err, out)
		}
	}
}

// command sends one and reads its answer.
func (b *browser) command(v map[string]any) (json.RawMessage, error) {
	b.t.Helper()
	b.last++
	v["id"] = b.last
	line, err := json.Marshal(v)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.in.Write(append(line, '\n')); err != nil {
		b.t.Fatal("Chromium is gone: ", err)
	}
	if !b.lines.Scan() {
		b.t.Fatal("Chromium is gone")
	}
	var res struct {
		Value json.RawMessage
		Error string
	}
	if err := json.Unmarshal(b.lines.Bytes(), &res); err != nil {
		b.t.Fatal(err)
	}
	if res.Error != "" {
		return nil, fmt.Errorf("%s", res.Error)
	}
	return res.Value, nil
}

// open goes to a URL and gives the status of the answer.
func (b *browser) open(url string) (status int, err error) {
	b.t.Helper()
	raw, err := b.command(map[string]any{"do": "open", "url": url})
	if err == nil {
		err = json.Unmarshal(raw, &status)
	}
	return status, err
}

// try runs JavaScript in the page, with the companion's client as `hallway`.
func (b *browser) try(js string, to any) error {
	b.t.Helper()
	raw, err := b.command(map[string]any{"do": "eval", "js": client(b.t) + js})
	if err == nil && to != nil {
		err = json.Unmarshal(raw, to)
	}
	return err
}

func (b *browser) eval(js string, to any) {
	b.t.Helper()
	if err := b.try(js, to); err != nil {
		b.t.Fatal(err)
	}
}

var exports = regexp.MustCompile(`(?m)^export \{ (.*) \}$`)

// client is the app's own client, kept in the page over several commands.
func client(t testing.TB) string {
	t.Helper()
	src, err := os.ReadFile("../../cmd/companion/src/client.js")
	if err != nil || !exports.Match(src) {
		t.Fatal("the companion's client: ", err)
	}
	return "globalThis.hallway ??= (() => {" + exports.ReplaceAllString(string(src), "return { $1 }") + "})();\n"
}
