package e2e

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// evilPage is served by a foreign site on the same LAN.
const evilPage = `require("http").createServer((q, r) => { r.setHeader("Content-Type", "text/html"); r.end("<title>evil</title><p>evil") }).listen(8080, () => console.log("up"))`

// TestA34_AForeignPageReachesNothing puts a foreign page and a rebinding page into the very browser in
// which an owner is logged in. They try forms, fetches, sockets, streams and images: nothing is changed
// and nothing can be read.
func TestA34_AForeignPageReachesNothing(t *testing.T) {
	l := newLab(t)
	stove := newNode(t, l, "stove", "panel", "Kitchen").start().found()
	origin, host := stove.origin(), stove.appHost()
	phoneHost, err := l.Host("phone")
	if err != nil {
		t.Fatal(err)
	}
	evil, err := l.Host("evil")
	if err != nil {
		t.Fatal(err)
	}
	if err := driver(); err != nil {
		missing(t, err.Error())
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	site := evil.Command(ctx, "node", "-e", evilPage)
	up := filepath.Join(t.TempDir(), "up")
	out, err := os.Create(up)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	site.Stdout = out
	if err := site.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = site.Wait() })
	stove.eventually(10*time.Second, "the foreign site is up", func() bool { b, _ := os.ReadFile(up); return strings.Contains(string(b), "up") })

	// evil.test is the foreign site; rebound.test, its page's name, leads to the node itself.
	rules := host + " " + stove.host.IPv4 + ", MAP evil.test " + evil.IPv4 + ", MAP rebound.test " + stove.host.IPv4
	b := newBrowser(t, phoneHost, rules, "", caOf(t, stove))
	if status, err := b.open(origin + "/"); err != nil || status != http.StatusOK {
		t.Fatal(status, err)
	}
	// A typed code, and a home whose certificate was trusted first: nobody needs to confirm.
	w := ask[phoneWindow](stove, "phone", "--name", "Ben", "--role", "owner", "--trusted", "--no-wait")
	var state string
	b.eval(`return (await hallway.pair(" `+w.Code+`", "Tablet")).state`, &state)
	if state != "paired" {
		t.Fatal(state)
	}
	b.eval(`await hallway.login(); await hallway.call("POST", "/home/rooms", {name: "Attic"}); return null`, nil)
	if out := stove.run("rooms"); !strings.Contains(out, "Attic") {
		t.Fatalf("the app itself made no room: %s", out)
	}

	if _, err := b.open("http://evil.test:8080/"); err != nil {
		t.Fatal(err)
	}
	var read []string
	b.eval(`const to = "`+origin+`", got = []
const attempt = async (what, f) => { try { const v = await f(); if (v) got.push(what + ": " + v) } catch {} }
for (const credentials of ["include", "omit"]) {
  await attempt("read", async () => (await fetch(to + "/api/v1/devices", { credentials })).text())
  await attempt("page", async () => (await fetch(to + "/", { credentials })).text())
  await attempt("opaque", async () => { await fetch(to + "/api/v1/home/rooms", { method: "POST", mode: "no-cors", credentials, body: '{"name":"Evil"}' }) })
  await attempt("put", async () => (await fetch(to + "/api/v1/home/rooms", { method: "POST", credentials, headers: { "Content-Type": "application/json" }, body: '{"name":"Evil"}' })).status)
}
await attempt("socket", () => new Promise((yes, no) => { const w = new WebSocket(to.replace("https", "wss") + "/sip", "sip"); w.onopen = () => yes("open"); w.onerror = no }))
await attempt("stream", () => new Promise((yes, no) => { const s = new EventSource(to + "/api/v1/events", { withCredentials: true }); s.onopen = () => yes("open"); s.onerror = () => { s.close(); no() } }))
await attempt("image", () => new Promise((yes, no) => { const i = new Image(); i.onload = () => yes("loaded"); i.onerror = no; i.src = to + "/api/v1/status" }))
await attempt("frame", () => new Promise((yes, no) => { const f = document.createElement("iframe"); f.src = to + "/"; f.onload = () => { try { yes(f.contentDocument && f.contentDocument.body.innerText) } catch { no() } }; document.body.append(f) }))
const f = document.createElement("form"); f.method = "POST"; f.action = to + "/api/v1/home/rooms"; f.enctype = "text/plain"; f.target = "_blank"
f.innerHTML = '<input name=\'{"name":"Evil","x":"\' value=\'"}\'>'; document.body.append(f); f.submit()
return got`, &read)
	if len(read) > 0 {
		t.Errorf("the foreign page got %q", read)
	}

	// The rebinding page has a certificate of its own for its own name in real life; here the
	// browser is told to take any, so that only the node's own check of Host is left.
	r := newBrowser(t, phoneHost, rules, "", nil, "--ignore-certificate-errors")
	status, err := r.open("https://rebound.test:8443/")
	if err != nil || status != http.StatusMisdirectedRequest {
		t.Errorf("a rebinding page got %d %v", status, err)
	}
	var statuses []int
	r.eval(`const out = []
for (const path of ["/api/v1/status", "/api/v1/openapi.json", "/trust/hallway.crt", "/healthz"]) out.push((await fetch(path)).status)
out.push((await fetch("/api/v1/session/challenge", { method: "POST" })).status)
return out`, &statuses)
	for i, s := range statuses {
		if s != http.StatusMisdirectedRequest {
			t.Errorf("request %d of a rebinding page: %d", i, s)
		}
	}
	if out := stove.run("rooms"); strings.Contains(out, "Evil") {
		t.Errorf("a foreign page changed the home: %s", out)
	}
}
