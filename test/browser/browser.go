// Package browser drives a real Chromium by playwright-core: drive.mjs, a child process, takes
// one JSON command a line. It works in a network namespace without any way out. The
// end-to-end tests and the bench share it.
package browser

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// Media are the arguments that give Chromium a fake camera and microphone, which nobody has to allow.
func Media() []string {
	return []string{"--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"}
}

// Button is the selector of a button by its name, as a screen reader says it.
func Button(name string) string { return `role=button[name="` + name + `"]` }

// Root is the folder of the repository, found from the working directory upwards.
func Root() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("there is no go.mod in this folder or above it")
		}
	}
	return "", err
}

// Ready prepares what drives Chromium, once; its error says which program is missing.
var Ready = sync.OnceValue(func() error {
	for _, p := range []string{"node", "npm", "chromium", "certutil"} {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%s is not installed; scripts/deps installs it", p)
		}
	}
	root, err := Root()
	if err != nil {
		return err
	}
	dir := filepath.Join(root, "test", "browser")
	if _, err := os.Stat(filepath.Join(dir, "node_modules/playwright-core/package.json")); err == nil {
		return nil
	}
	cmd := exec.Command("npm", "ci", "--ignore-scripts") //nolint:noctx // once, and it ends by itself
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("playwright-core could not be installed: %w: %s", err, out)
	}
	return nil
})

// Options of a browser.
type Options struct {
	// Command prepares a program where the browser is to live; it and all that it started must
	// end with ctx (netlab.Host.Command does so).
	Command func(ctx context.Context, name string, args ...string) *exec.Cmd
	Dir     string   // profile and home; must exist
	CA      []byte   // PEM of an authority that it trusts, as after a person's import; nil: none
	Args    []string // for Chromium
}

// Browser is one Chromium with one page. It takes one command at a time.
type Browser struct {
	cmd    *exec.Cmd
	cancel context.CancelFunc
	in     io.WriteCloser
	lines  *bufio.Scanner
	last   int
	noise  strings.Builder // of both processes; to be read after Close
}

// Start runs a browser and returns once it takes commands. Close it.
func Start(o Options) (*Browser, error) {
	if err := Ready(); err != nil {
		return nil, err
	}
	root, err := Root()
	if err != nil {
		return nil, err
	}
	if o.CA != nil {
		if err := importCA(o.Dir, o.CA); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &Browser{cancel: cancel}
	b.cmd = o.Command(ctx, "node", append([]string{filepath.Join(root, "test", "browser", "drive.mjs"), filepath.Join(o.Dir, "profile")}, o.Args...)...)
	b.cmd.Env = append(os.Environ(), "HOME="+o.Dir)
	b.cmd.Stderr = &b.noise
	in, err1 := b.cmd.StdinPipe()
	out, err2 := b.cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		cancel()
		return nil, err
	}
	b.in, b.lines = in, bufio.NewScanner(out)
	b.lines.Buffer(nil, 1<<22)
	if err := b.cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	if !b.lines.Scan() {
		b.Close()
		return nil, errors.New("the browser did not start: " + b.Noise())
	}
	return b, nil
}

func importCA(home string, ca []byte) error {
	if block, _ := pem.Decode(ca); block == nil {
		return fmt.Errorf("no certificate in %q", ca)
	}
	db, file := filepath.Join(home, ".pki", "nssdb"), filepath.Join(home, "ca.pem")
	if err := errors.Join(os.MkdirAll(db, 0o700), os.WriteFile(file, ca, 0o600)); err != nil {
		return err
	}
	for _, args := range [][]string{{"-N", "--empty-password"}, {"-A", "-n", "hallway", "-t", "C,,", "-i", file}} {
		cmd := exec.Command("certutil", append([]string{"-d", "sql:" + db}, args...)...) //nolint:noctx // ends by itself
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("certutil: %w: %s", err, out)
		}
	}
	return nil
}

// Close ends the browser and waits for it, so that its folder can be removed.
func (b *Browser) Close() {
	_, _ = io.WriteString(b.in, `{"do":"close"}`+"\n") // it may be gone
	_ = b.in.Close()
	for b.lines.Scan() { // until it has ended
	}
	_ = b.cmd.Wait()
	b.cancel()
}

// Noise is what browser and driver complained of; to be asked after Close.
func (b *Browser) Noise() string { return b.noise.String() }

// Command sends one (drive.mjs lists them) and reads its answer.
func (b *Browser) Command(v map[string]any) (json.RawMessage, error) {
	b.last++
	v["id"] = b.last
	line, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if _, err := b.in.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("the browser is gone: %w", err)
	}
	if !b.lines.Scan() {
		return nil, errors.Join(errors.New("the browser is gone"), b.lines.Err())
	}
	var res struct {
		Value json.RawMessage
		Error string
	}
	if err := json.Unmarshal(b.lines.Bytes(), &res); err != nil {
		return nil, err
	}
	if res.Error != "" {
		return nil, errors.New(res.Error)
	}
	return res.Value, nil
}

// Open goes to a URL and gives the status of the answer.
func (b *Browser) Open(url string) (status int, err error) {
	raw, err := b.Command(map[string]any{"do": "open", "url": url})
	if err == nil {
		err = json.Unmarshal(raw, &status)
	}
	return status, err
}

// Act does what a person does: click, fill, choose, wait or gone, at a selector of Playwright.
// It has 15 s; the error says what the page shows instead.
func (b *Browser) Act(do, at, value string) error {
	_, err := b.Command(map[string]any{"do": do, "at": at, "value": value})
	if err != nil {
		shown, _ := b.Command(map[string]any{"do": "text"})
		err = fmt.Errorf("%s %s: %w\nthe page shows %s", do, at, err, shown)
	}
	return err
}

// Run evaluates the body of an async function in the page and decodes what it returns; to may be nil.
func (b *Browser) Run(js string, to any) error {
	raw, err := b.Command(map[string]any{"do": "eval", "js": js})
	if err == nil && to != nil {
		err = json.Unmarshal(raw, to)
	}
	return err
}
