package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

// chromium is a real browser on a host, spoken to over its debugging pipe: it needs no port, so
// it can be reached from outside its namespace.
type chromium struct {
	t    testing.TB
	cmd  *exec.Cmd
	in   io.Writer
	mu   sync.Mutex
	next int
	wait map[int]chan reply
}

type reply struct {
	ID     int             `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// startChromium runs a browser with a camera and a microphone that are fakes of its own.
func startChromium(t testing.TB, h *netlab.Host) *chromium {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		missing(t, "chromium is missing (Debian: apt install chromium)")
	}
	toR, toW, err1 := os.Pipe()
	fromR, fromW, err2 := os.Pipe()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	c := &chromium{t: t, in: toW, wait: map[int]chan reply{}}
	profile := t.TempDir()
	c.cmd = h.Command(context.Background(), program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--ignore-certificate-errors", "--remote-debugging-pipe", "--user-data-dir="+profile,
		"--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--autoplay-policy=no-user-gesture-required", "about:blank")
	c.cmd.ExtraFiles = []*os.File{toR, fromW} // 3 and 4
	c.cmd.Env = append(os.Environ(), "HOME="+profile)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = toR.Close()
	_ = fromW.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		c.listen(fromR)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
		_ = c.cmd.Wait()
		_ = toW.Close()
		_ = fromR.Close()
		<-read
	})
	return c
}

func (c *chromium) listen(r io.Reader) {
	in := bufio.NewReader(r)
	for {
		b, err := in.ReadBytes(0)
		if err != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			for id, ch := range c.wait {
				close(ch)
				delete(c.wait, id)
			}
			return
		}
		var m reply
		if json.Unmarshal(b[:len(b)-1], &m) != nil || m.ID == 0 {
			continue // an event
		}
		c.mu.Lock()
		if ch := c.wait[m.ID]; ch != nil {
			ch <- m
			delete(c.wait, m.ID)
		}
		c.mu.Unlock()
	}
}

// do sends one command of the DevTools protocol and waits for its answer.
func (c *chromium) do(session, method string, params any) (json.RawMessage, error) {
	c.mu.Lock()
	c.next++
	id, ch := c.next, make(chan reply, 1)
	c.wait[id] = ch
	b, err := json.Marshal(map[string]any{"id": id, "method": method, "params": params, "sessionId": session})
	if session == "" {
		b, err = json.Marshal(map[string]any{"id": id, "method": method, "params": params})
	}
	if err == nil {
		_, err = c.in.Write(append(b, 0))
	}
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case m, ok := <-ch:
		switch {
		case !ok:
			return nil, errors.New("the browser has ended")
		case m.Error != nil:
			return nil, errors.New(m.Error.Message)
		}
		return m.Result, nil
	case <-time.After(15 * time.Second):
		return nil, fmt.Errorf("%s: no answer within 15 s", method)
	}
}

// tab is one page of a browser.
type tab struct {
	c       *chromium
	target  string
	session string
}

// open shows a page and waits until its script has run.
func (c *chromium) open(url string) *tab {
	c.t.Helper()
	p := &tab{c: c}
	raw, err := c.do("", "Target.createTarget", map[string]any{"url": url})
	if err != nil {
		c.t.Fatal(err)
	}
	var made struct {
		TargetID  string `json:"targetId"`
		SessionID string `json:"sessionId"`
	}
	_ = json.Unmarshal(raw, &made)
	p.target = made.TargetID
	if raw, err = c.do("", "Target.attachToTarget", map[string]any{"targetId": p.target, "flatten": true}); err != nil {
		c.t.Fatal(err)
	}
	_ = json.Unmarshal(raw, &made)
	p.session = made.SessionID
	var again time.Time
	for end := time.Now().Add(20 * time.Second); ; {
		var ok, broken bool
		if err := p.try("!!window.phone", &ok); err == nil && ok {
			return p
		} else if _ = p.try("location.protocol == 'chrome-error:'", &broken); broken && time.Since(again) > time.Second {
			again = time.Now()
			// Its first connections fail while it finds out about the network.
			_, _ = c.do(p.session, "Page.navigate", map[string]any{"url": url})
		} else if time.Now().After(end) {
			var seen string
			_ = p.try("location.href + ' ' + document.body.innerText.slice(0, 400)", &seen)
			c.t.Fatalf("the page %s did not load: %v; it shows %s", url, err, seen)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// try evaluates an expression; promises are awaited.
func (p *tab) try(js string, into any) error {
	raw, err := p.c.do(p.session, "Runtime.evaluate", map[string]any{"expression": js, "awaitPromise": true, "returnByValue": true, "userGesture": true})
	if err != nil {
		return err
	}
	var out struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		Fault *struct {
			Text      string `json:"text"`
			Exception struct {
				Description string `json:"description"`
			} `json:"exception"`
		} `json:"exceptionDetails"`
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		return err
	}
	if out.Fault != nil {
		return fmt.Errorf("%s: %s %s", js, out.Fault.Text, out.Fault.Exception.Description)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(out.Result.Value, into)
}

func (p *tab) run(js string) {
	p.c.t.Helper()
	if err := p.try(js, nil); err != nil {
		p.c.t.Fatal(err)
	}
}

// crash kills the page's process, as an operating system does.
func (p *tab) crash() { // it is not answered
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.c.next++
	b, _ := json.Marshal(map[string]any{"id": p.c.next, "method": "Page.crash", "sessionId": p.session})
	_, _ = p.c.in.Write(append(b, 0))
}

// pageState is what page.js says of itself.
type pageState struct {
	Ended []struct {
		Cause      string `json:"cause"`
		Originator string `json:"originator"`
		Reason     string `json:"reason"`
	} `json:"ended"`
	Heard       []string `json:"heard"`
	Rang        int      `json:"rang"`
	Ringing     bool     `json:"ringing"`
	Held        string   `json:"held"`
	Registered  int      `json:"registered"`
	Established bool     `json:"established"`
	Incoming    bool     `json:"incoming"`
	From        string   `json:"from"`
	Frames      int      `json:"frames"`
	Audio       int      `json:"audio"`
	Energy      float64  `json:"energy"`
	Sent        int      `json:"sent"`
}

func (p *tab) state() pageState {
	p.c.t.Helper()
	var s pageState
	if err := p.try("phone.state()", &s); err != nil {
		p.c.t.Fatal(err)
	}
	return s
}

func (p *tab) eventually(limit time.Duration, what string, f func(pageState) bool) pageState {
	p.c.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		s := p.state()
		if f(s) {
			return s
		}
		if time.Now().After(end) {
			p.c.t.Fatalf("the page: did not happen within %v: %s; it says %+v", limit, what, s)
		}
	}
}

// pages builds the test's page with JsSIP, once for all tests.
var pages = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(os.TempDir(), "hallway-browser-test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for _, f := range []string{"page.html", "page.js"} {
		b, err := os.ReadFile(filepath.Join("browser", f))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, f+".in"), b, 0o600)
		}
		if err != nil {
			return "", err
		}
	}
	script := `set -e
[ -e node_modules/jssip/package.json ] && [ -e node_modules/.bin/esbuild ] || npm install --no-save --no-audit --no-fund --silent jssip@3.13.8 esbuild@0.25
mkdir -p shown; cp page.html.in shown/page.html; cp page.js.in page.js
node_modules/.bin/esbuild page.js --bundle --outfile=shown/page.js --define:global=window --log-level=error`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("the test's page cannot be built with npm: %w: %s", err, out)
	}
	return filepath.Join(dir, "shown"), nil
})
