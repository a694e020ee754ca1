package ssdp

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"log/slog"

	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/discovery/multicast"
)

func TestLocationIsFollowedOnlyToItsSender(t *testing.T) {
	for _, c := range []struct {
		location, sender, want string
	}{
		{"http://10.0.0.9:8200/a.xml", "10.0.0.9", "10.0.0.9:8200"},
		{"http://10.0.0.9/a.xml", "10.0.0.9", "10.0.0.9:80"},
		{"http://[fe80::9]:80/a", "fe80::9%eth1", "[fe80::9%eth1]:80"},
		{"http://[fe80::9%25eth5]:80/a", "fe80::9%eth1", "[fe80::9%eth1]:80"},
		{"http://10.0.0.8:8200/a.xml", "10.0.0.9", ""},
		{"http://example.com/a.xml", "10.0.0.9", ""},
		{"http://localhost/a.xml", "127.0.0.2", ""},
		{"https://10.0.0.9/a.xml", "10.0.0.9", ""},
		{"file:///etc/passwd", "10.0.0.9", ""},
		{"http://u:p@10.0.0.9/", "10.0.0.9", ""},
		{"http://10.0.0.9:0/", "10.0.0.9", ""},
		{"http://10.0.0.9:99999/", "10.0.0.9", ""},
		{"", "10.0.0.9", ""},
	} {
		_, addr, err := target(c.location, netip.MustParseAddr(c.sender))
		if (err == nil) != (c.want != "") || err == nil && addr.String() != c.want {
			t.Errorf("%s from %s: %v %v", c.location, c.sender, addr, err)
		}
	}
}

func TestFetchKeepsItsLimits(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it went to another host") }))
	defer elsewhere.Close()
	stop := make(chan struct{})
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	defer srv.Close()
	defer close(stop)
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "doc") })
	mux.HandleFunc("/same", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, strings.Replace(elsewhere.URL, "127.0.0.1", "127.0.0.2", 1), http.StatusFound)
	})
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		for range 1000 {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/slow", func(http.ResponseWriter, *http.Request) { <-stop })
	for path, want := range map[string]string{"/ok": "doc", "/same": "doc", "/loop": "", "/away": "", "/large": "", "/slow": "", "/none": ""} {
		u, err := url.Parse(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*fetchTime)
		began := time.Now()
		data, err := fetch(ctx, u, netip.MustParseAddr("127.0.0.1"))
		if (err == nil) != (want != "") || err == nil && string(data) != want || ctx.Err() != nil {
			t.Errorf("%s: %.40q %v after %v", path, data, err, time.Since(began))
		}
		cancel()
	}
}

func TestServesTheDescriptionAndNothingElse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	links := map[int]multicast.Link{1: {Index: 1, Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}}}
	far := map[int]multicast.Link{1: {Index: 1, Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}}}
	now := links
	doc, _ := announced().describe("urn:x")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- serve(ctx, onLink{ln, func() map[int]multicast.Link { return now }}, func() *page { return &page{doc, "https://hallway-0011aabb.local:8443/"} }, slog.New(slog.DiscardHandler))
	}()
	base := "http://" + ln.Addr().String()
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Transport: &http.Transport{DisableKeepAlives: true}}
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", path, 200}, {"HEAD", path, 200}, {"GET", "/", 307}, {"POST", "/", 404}, {"GET", "/other", 404}, {"POST", path, 404},
		{"SUBSCRIBE", path, 501}, {"SUBSCRIBE", "/evt", 501}, {"UNSUBSCRIBE", path, 501}, {"GET", "/../" + path, 404},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), c.method, base+c.path, nil)
		req.Header.Set("CALLBACK", "<http://127.0.0.1:9/>")
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		_, _ = b.ReadFrom(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != c.status || (c.method == "GET" && c.status == 200) != bytes.Equal(b.Bytes(), doc) || c.status != 200 && b.Len() > 0 {
			t.Errorf("%s %s: %d %q", c.method, c.path, res.StatusCode, b.String())
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if near(far, &net.TCPAddr{IP: net.IPv4(8, 8, 8, 8), Port: 1}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}) {
		t.Error("a reader from elsewhere is served")
	}
	if near(far, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 1}, &net.TCPAddr{IP: net.IPv4(192, 168, 0, 1), Port: 1}) {
		t.Error("an unused interface serves")
	}
	if !near(far, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 1}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}) {
		t.Error("a neighbour is not served")
	}
}

const billion = `<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;">]>`

func TestDescriptionIsReadWithinLimits(t *testing.T) {
	inner := `<deviceList><device><deviceType>urn:schemas-upnp-org:device:MediaServer:1</deviceType><friendlyName>Inner</friendlyName><UDN>uuid:in</UDN></device></deviceList>`
	good := strings.Replace(desc("TV  é\x7f", renderer, uuidA), "</device></root>", inner+"</device></root>", 1)
	d, err := parseDescription([]byte(good))
	if err != nil || d.name != "TV  é" || d.deviceType != renderer || d.udn != "uuid:"+uuidA || len(d.embedded) != 1 {
		t.Fatalf("%+v %v", d, err)
	}
	for name, doc := range map[string]string{
		"entities":     billion + desc("&lol2;", renderer, uuidA),
		"external":     `<!DOCTYPE root SYSTEM "http://example.com/x.dtd">` + desc("x", renderer, uuidA),
		"deep":         strings.Repeat("<a>", maxDepth+1) + strings.Repeat("</a>", maxDepth+1),
		"many":         "<root>" + strings.Repeat("<a/>", maxElements) + "</root>",
		"long":         desc(strings.Repeat("x", maxDescription), renderer, uuidA),
		"cut":          good[:len(good)/2],
		"no type":      desc("x", "", uuidA),
		"html":         "<html><body>Hello</body></html>",
		"empty":        "",
		"other entity": desc("&nbsp;", renderer, uuidA),
	} {
		if d, err := parseDescription([]byte(doc)); err == nil {
			t.Errorf("%s was read as %+v", name, d)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range [][]byte{
		alive(uuidA, "upnp:rootdevice", urlA, 1), bye(uuidA, ""), query("ssdp:all"),
		[]byte("HTTP/1.1 200 OK\r\nCACHE-CONTROL: no-cache, max-age = 100\r\nST: upnp:rootdevice\r\nUSN: uuid:x::upnp:rootdevice\r\nLOCATION: http://[fe80::1]:1/\r\n\r\n"),
		[]byte("NOTIFY * HTTP/1.0\n\n"), []byte("M-SEARCH * HTTP/1.1\r\nMAN:ssdp:discover\r\nMX:99999999999\r\n"),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parse(data)
		if err != nil {
			return
		}
		if m.kind == 0 || len(m.header) > maxHeaders {
			t.Fatalf("%+v", m)
		}
		for k, v := range m.header {
			if k == "" || strings.ContainsAny(k+v, "\r\n\x00") {
				t.Fatalf("header %q: %q", k, v)
			}
		}
		if a := m.age(); a < leastAge || a > mostAge {
			t.Fatal(a)
		}
		if d, ok := m.delay(true); ok && (d <= 0 || d > mostDelay) {
			t.Fatal(d)
		}
		if id, _, ok := usn(m.header["USN"]); ok && (id == "" || len(id) > maxUUID || id != strings.ToLower(id)) {
			t.Fatalf("%q", id)
		}
		sender := netip.MustParseAddr("10.0.0.9")
		if _, a, err := target(m.header["LOCATION"], sender); err == nil && a.Addr() != sender {
			t.Fatal(a)
		}
	})
}

func FuzzDescription(f *testing.F) {
	for _, s := range []string{
		desc("TV", renderer, uuidA), billion + desc("&lol2;", renderer, uuidA), "<root><device/></root>", "<a", "",
		"\xff\xfe<\x00r\x00", `<?xml version="1.0" encoding="iso-8859-1"?><root/>`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := parseDescription(data)
		if err != nil {
			return
		}
		for _, s := range append(d.embedded, d.deviceType, d.name, d.maker, d.model, d.udn) {
			if len([]rune(s)) > discovery.MaxLine || strings.ContainsAny(s, "\r\n\x00\x1b") {
				t.Fatalf("%q", s)
			}
		}
		if len(d.embedded) > maxEmbedded {
			t.Fatal(len(d.embedded))
		}
	})
}
