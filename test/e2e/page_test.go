package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

// chromium is a browser of its own for one phone, with a camera and a microphone that are fakes.
type chromium struct {
	t    testing.TB
	host *netlab.Host
	b    *browser // nil before its first page
}

func startChromium(t testing.TB, h *netlab.Host) *chromium { return &chromium{t: t, host: h} }

// tab is one page of a browser.
type tab struct {
	c      *chromium
	number int
}

// open shows a page under the home's origin, served by a node, in which page.js runs instead of
// the app. All pages of a browser are served by the same node.
func (c *chromium) open(n *node) *tab {
	c.t.Helper()
	script, err := pages()
	if err != nil {
		missing(c.t, err.Error())
	}
	origin := n.origin()
	if c.b == nil {
		c.b = n.browserOn(c.host, n.host.IPv4, autoplay)
	}
	p := &tab{c: c}
	raw, err := c.b.command(map[string]any{"do": "another", "url": origin + "/healthz"})
	if err == nil {
		err = json.Unmarshal(raw, &p.number)
	}
	if err == nil {
		_, err = c.b.command(map[string]any{"do": "in", "page": p.number, "js": script + "; return null"})
	}
	must(c.t, err)
	return p
}

// join makes it a phone by a window of an owner's node; who is what `hallway phone` is told.
func (p *tab) join(owner *node, who ...string) {
	p.c.t.Helper()
	w := ask[phoneWindow](owner, append([]string{"phone", "--trusted", "--no-wait"}, who...)...)
	p.run("phone.pair('" + w.Code + "', 'Phone')")
}

// phone opens a page at an owner's node, pairs it as a person's phone and registers it.
func (c *chromium) phone(n *node, person string) *tab {
	c.t.Helper()
	p := c.open(n)
	p.join(n, "--name", person)
	p.run("phone.start()")
	return p
}

// try evaluates an expression; promises are awaited.
func (p *tab) try(js string, into any) error {
	js = "return await (" + js + ")"
	if into == nil {
		js = strings.TrimPrefix(js, "return ") + "; return null"
	}
	raw, err := p.c.b.command(map[string]any{"do": "in", "page": p.number, "js": js})
	if err != nil || into == nil {
		return err
	}
	return json.Unmarshal(raw, into)
}

func (p *tab) run(js string) {
	p.c.t.Helper()
	if err := p.try(js, nil); err != nil {
		p.c.t.Fatal(err)
	}
}

// crash kills the page's process, as an operating system does.
func (p *tab) crash() {
	p.c.t.Helper()
	_, err := p.c.b.command(map[string]any{"do": "crash", "page": p.number})
	must(p.c.t, err)
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

// pages bundles page.js with what the companion was built of, once for all tests.
var pages = sync.OnceValues(func() (string, error) {
	modules, err := filepath.Abs("../../cmd/companion/node_modules")
	if err != nil {
		return "", err
	}
	cmd := exec.Command(filepath.Join(modules, ".bin/esbuild"), "browser/page.js", "--bundle", "--format=iife", "--define:global=window", "--log-level=error") //nolint:noctx // ends by itself
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("the test's page was not built; make companion brings what that takes (npm): %w", err)
	}
	return string(out), nil
})
