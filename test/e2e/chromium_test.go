package e2e

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	drive "github.com/hallway-home/hallway/test/browser"
	"github.com/hallway-home/hallway/test/netlab"
)

// driver prepares the program that drives Chromium, once.
func driver() error { return drive.Ready() }

// browser is one Chromium with a fresh profile, whose failures end the test.
type browser struct {
	t testing.TB
	*drive.Browser
}

// newBrowser starts Chromium on a host. There is no mDNS resolver in a namespace, so the
// home's name is mapped to the node `at` by --host-resolver-rules, as a resolver would; the
// certificate is still checked against the name. ca (PEM, may be nil) goes into the
// profile's NSS database, as a person's import would.
func newBrowser(t testing.TB, h *netlab.Host, appHost, at string, ca []byte, args ...string) *browser {
	t.Helper()
	return startBrowser(t, drive.Options{
		Command: h.Command, CA: ca, Args: append([]string{"--host-resolver-rules=MAP " + strings.TrimSpace(appHost+" "+at)}, args...),
	})
}

func startBrowser(t testing.TB, o drive.Options) *browser {
	t.Helper()
	if err := driver(); err != nil {
		missing(t, err.Error())
	}
	o.Dir = t.TempDir()
	b, err := drive.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.Close()
		if t.Failed() {
			t.Log("--- browser\n" + b.Noise())
		}
	})
	return &browser{t, b}
}

// command sends one and reads its answer.
func (b *browser) command(v map[string]any) (json.RawMessage, error) { return b.Command(v) }

// open goes to a URL and gives the status of the answer.
func (b *browser) open(url string) (status int, err error) { return b.Open(url) }

// try runs JavaScript in the page, with the companion's client as `hallway`.
func (b *browser) try(js string, to any) error {
	b.t.Helper()
	return b.Run(client(b.t)+js, to)
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
