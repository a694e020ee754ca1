package edge

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// Only a page of the app's own origin, with the subprotocol, of a phone of the home.
func TestWhoGetsAFlow(t *testing.T) {
	n := newNode(t)
	p := n.phone("maria")
	stranger := *p
	stranger.id = devices.NodeID{9}
	for _, c := range []struct {
		what string
		page *page
		edit func(http.Header)
		want int
	}{
		{"another site", p, func(h http.Header) { h.Set("Origin", "https://evil.example") }, 403},
		{"no origin", p, func(h http.Header) { h.Del("Origin") }, 403},
		{"another subprotocol", p, func(h http.Header) { h.Set("X-Subprotocol", "chat") }, 400},
		{"no phone of the home", &stranger, nil, 403},
		{"a phone", p, nil, http.StatusSwitchingProtocols},
	} {
		res, err := c.page.dial(c.edit)
		if res == nil || res.StatusCode != c.want {
			t.Errorf("%s: %v %v", c.what, res, err)
		}
	}
	res, err := client.Post(n.url+"/sip?phone="+p.id.String()+"&person=maria", "text/plain", nil)
	if err != nil || res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a POST: %v %v", res, err)
	}
	_ = res.Body.Close()
}

func TestFlowsOfAPhoneAreBounded(t *testing.T) {
	n := newNode(t)
	p := n.phone("maria")
	for i := range maxPhoneFlows {
		if _, err := p.dial(nil); err != nil {
			t.Fatalf("page %d: %v", i, err)
		}
	}
	if res, err := p.dial(nil); err == nil || res == nil || res.StatusCode != http.StatusTooManyRequests {
		t.Errorf("one more: %v %v", res, err)
	}
	n.phone("sam").open().register() // others are not hurt
}

// Connections that say nothing, and pages that say half a message, hold nobody up.
func TestIdleConnectionsBlockNobody(t *testing.T) {
	n := newNode(t)
	for range 200 {
		c, err := net.Dial("tcp", strings.TrimPrefix(n.url, "https://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	n.phone("idle").open()
	began := time.Now()
	n.phone("maria").open().register()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("a registration took %v", took)
	}
}

// A registration needs what the phone has signed, for this run of this node.
func TestOnlySignedBindingsRegister(t *testing.T) {
	n := newNode(t)
	maria, sam := n.phone("maria").open(), n.phone("sam")
	for _, c := range []struct {
		what, to, header string
		want             int
	}{
		{"nothing signed", "maria", "", 403},
		{"signed by another phone", "maria", maria.binding(sam.key, n.edge.Name()), 403},
		{"signed for another run", "maria", maria.binding(maria.key, "older"), 403},
		{"no binding at all", "maria", "Hallway-Binding: AAAA\r\n", 403},
		{"no base64", "maria", "Hallway-Binding: $$$\r\n", 400},
		{"another person", "sam", maria.binding(maria.key, n.edge.Name()), 403},
		{"as it should be", "maria", maria.binding(maria.key, n.edge.Name()), 200},
		{"a refresh", "maria", "", 200},
	} {
		maria.request("REGISTER", c.to, token(), token(), token(), "", c.header, "")
		if s := maria.status(); s != c.want {
			t.Errorf("%s: %d, not %d", c.what, s, c.want)
		}
	}
	n.mu.Lock()
	written := n.written
	n.mu.Unlock()
	maria.register() // says the same: the home need not hear it again
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.written != written {
		t.Error("a binding that says nothing new was shared again")
	}
}

// A phone speaks for its person alone, and offers only what it has signed.
func TestCallsOfAPhoneAreScreened(t *testing.T) {
	n := newNode(t)
	maria := n.phone("maria").open()
	sam := n.phone("sam").open().register()
	invite := func(to, body string) int {
		maria.request("INVITE", to, token(), token(), token(), "", "", body)
		s := maria.status()
		return s
	}
	if s := invite("sam", maria.sdp()); s != 403 {
		t.Errorf("before it registered: %d", s)
	}
	maria.register()
	if s := invite("sam", strings.ReplaceAll(maria.sdp(), "AB:AB", "AB:AC")); s != 403 {
		t.Errorf("with a fingerprint that it did not sign: %d", s)
	}
	if s := invite("sam", strings.Replace(maria.sdp(), "a=fingerprint", "a=nothing", 1)); s != 403 {
		t.Errorf("without a fingerprint: %d", s)
	}
	if s := invite("nobody", maria.sdp()); s != 404 {
		t.Errorf("to nobody: %d", s)
	}
	maria.person = "sam"
	if s := invite("sam", maria.sdp()); s != 403 {
		t.Errorf("in another name: %d", s)
	}
	maria.person = "maria"
	maria.request("SUBSCRIBE", "sam", token(), token(), token(), "", "", "")
	if s := maria.status(); s != 405 {
		t.Errorf("an unknown method: %d", s)
	}
	maria.request("INVITE", "sam", token(), token(), token(), "", "", maria.sdp())
	if r := sam.asked("INVITE"); r.From().Address.User != "maria" || r.GetHeader("Session-ID") == nil {
		t.Errorf("rings as %v", r)
	}
}

func TestWhole(t *testing.T) {
	const head = "OPTIONS sip:a@b SIP/2.0\r\nCSeq: 1 OPTIONS\r\n"
	for _, c := range []struct{ in, want string }{
		{"\r\n\r\n", "\r\n\r\n"},
		{"\r\n", "\r\n"},
		{head + "Content-Length: 2\r\n\r\nab", head + "Content-Length: 2\r\n\r\nab"},
		{head + "l : 2\r\n\r\nab", head + "l : 2\r\n\r\nab"},
		{head + "\r\nab", head + "Content-Length: 2\r\n\r\nab"},
		{"\r\n" + head + "\r\n", head + "Content-Length: 0\r\n\r\n"},
		{head + "Content-Length: 3\r\n\r\nab", ""},
		{head + "Content-Length: 1\r\n\r\nab", ""},
		{head + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab", ""},
		{head + "Content-Length: two\r\n\r\nab", ""},
		{head, ""},
	} {
		got, err := whole([]byte(c.in))
		if string(got) != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%q becomes %q, %v", c.in, got, err)
		}
	}
}

func FuzzWhole(f *testing.F) {
	f.Add([]byte("OPTIONS sip:a@b SIP/2.0\r\nCSeq: 1 OPTIONS\r\n\r\nbody"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		out, err := whole(msg)
		if err != nil || len(out) <= 4 {
			return
		}
		again, err := whole(out) // what is passed on is whole, and says its length
		if err != nil || string(again) != string(out) || !strings.Contains(strings.ToLower(string(out)), "l") {
			t.Errorf("%q became %q, then %q, %v", msg, out, again, err)
		}
	})
}
