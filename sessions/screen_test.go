package sessions

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hallway-home/hallway/devices"
)

// invites sends an INVITE in a name of its own choosing and returns the answer.
func (p *phone) invites(t *testing.T, to *phone, from string) int {
	t.Helper()
	dlg := &dialog{
		peer: to.id, callID: token(8), localTag: token(4), session: token(16),
		local: uri(devices.AOR{Slug: from, Home: homeOf(t, p)}), remote: uri(selfOf(t, to).AOR), target: uri(selfOf(t, to).AOR),
	}
	req := p.request(sip.INVITE, dlg, 1)
	setSDP(req, []byte("v=0\r\n"))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	res, err := p.roundTrip(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode
}

func selfOf(t *testing.T, p *phone) devices.Device {
	t.Helper()
	d, err := p.self()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func homeOf(t *testing.T, p *phone) devices.HomeID { return selfOf(t, p).AOR.Home }

// A member may speak only in its own name, whatever its From and P-Asserted-Identity say.
func TestFromMustBelongToTLSPeer(t *testing.T) {
	h := newHouse(t, member{slug: "tv"}, member{slug: "panel"}, member{slug: "camera"})
	tv, panel := h.phones["tv"], h.phones["panel"]
	if code := tv.invites(t, panel, "camera"); code != statusForbidden {
		t.Errorf("in another's name: %d", code)
	}
	if code := tv.invites(t, panel, "nobody"); code != statusForbidden {
		t.Errorf("in nobody's name: %d", code)
	}
	if len(panel.Calls()) != 0 {
		t.Errorf("it rang: %+v", panel.Calls())
	}
}

func parse(t testing.TB, text string) *sip.Request {
	t.Helper()
	msg, err := sip.NewParser().ParseSIP([]byte(strings.ReplaceAll(text, "\n", "\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	return msg.(*sip.Request)
}

const good = `INVITE sip:panel@x.home.arpa SIP/2.0
Via: SIP/2.0/TLS [fd00::1]:5061;branch=z9hG4bK1
Max-Forwards: 70
From: <sip:tv@x.home.arpa>;tag=1
To: <sip:panel@x.home.arpa>
Call-ID: 1
CSeq: 1 INVITE
Content-Type: application/sdp
Content-Length: 4

v=0
`

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		old, new string
		want     int
	}{
		"good":           {"", "", statusOK},
		"version":        {"panel@x.home.arpa SIP/2.0", "panel@x.home.arpa SIP/7.0", 505},
		"method":         {"CSeq: 1 INVITE", "CSeq: 1 BYE", 400},
		"unknown method": {"INVITE sip:panel", "DANCE sip:panel", 501},
		"scheme":         {"INVITE sip:", "INVITE sips:", 416},
		"headers":        {"panel@x.home.arpa SIP", "panel@x.home.arpa?Route=x SIP", 400},
		"hops":           {"Max-Forwards: 70", "Max-Forwards: 0", 483},
		"require":        {"Max-Forwards: 70", "Require: teleport\nMax-Forwards: 70", 420},
		"body type":      {"application/sdp", "text/plain", 415},
		"accept":         {"Max-Forwards: 70", "Accept: text/plain\nMax-Forwards: 70", 406},
		"long line":      {"Max-Forwards: 70", "Subject: " + strings.Repeat("x", maxLine) + "\nMax-Forwards: 70", 513},
		"many headers":   {"Max-Forwards: 70", strings.Repeat("Subject: x\n", maxHeaders) + "Max-Forwards: 70", 513},
		"many Via":       {"Max-Forwards: 70", strings.Repeat("Via: SIP/2.0/TLS a;branch=z9hG4bK2\n", maxVia) + "Max-Forwards: 70", 513},
	} {
		text := good
		if c.old != "" {
			text = strings.Replace(good, c.old, c.new, 1)
		}
		if code, phrase := statusOf(validate(parse(t, text))); code != c.want {
			t.Errorf("%s: %d %s, want %d", name, code, phrase, c.want)
		}
	}
}

// The torture messages of RFC 4475 that the library ships: none may crash what stands
// above its parser.
func TestTortureMessagesCrashNothing(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/emiago/sipgo").Output()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = filepath.WalkDir(filepath.Join(strings.TrimSpace(string(out)), "sip", "testdata", "torture"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		n++
		look(data)
		return nil
	})
	if err != nil || n < 20 {
		t.Fatalf("%d messages, %v", n, err)
	}
}

// look does with bytes from the wire what the agent does before it decides.
func look(data []byte) {
	msg, _ := sip.NewParser().ParseSIP(data) // may return a message together with an error
	if req, ok := msg.(*sip.Request); ok && req != nil {
		code, phrase := statusOf(validate(req))
		if code != statusOK && req.Via() != nil && req.From() != nil && req.To() != nil {
			decorate(sip.NewResponseFromRequest(req, code, phrase, nil), req)
		}
		sessionOf(req)
		newGate().tap(req)
	}
}

func FuzzSIP(f *testing.F) {
	f.Add([]byte(strings.ReplaceAll(good, "\n", "\r\n")))
	f.Add([]byte("SIP/2.0 200 OK\r\nVia: x\r\n\r\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { look(b) })
}

func TestGateTakesStolenBranches(t *testing.T) {
	g := newGate()
	req := parse(t, good)
	req.SetSource("[fd00::1]:5061")
	g.tap(req)
	cancel := parse(t, strings.NewReplacer("INVITE sip", "CANCEL sip", "1 INVITE", "1 CANCEL").Replace(good))
	cancel.SetSource("[fd00::2]:5061")
	g.tap(cancel)
	if branchOf(cancel.Via()) == "z9hG4bK1" {
		t.Error("another member's CANCEL keeps the branch")
	}
	res := sip.NewResponseFromRequest(req, 200, "OK", nil)
	res.SetSource("[fd00::2]:5061")
	g.tap(res)
	if branchOf(res.Via()) == "z9hG4bK1" {
		t.Error("another member's response keeps the branch")
	}
}

// Messages of one dialog reach their handlers in the order of the wire.
func TestGateKeepsOrder(t *testing.T) {
	g := newGate()
	first := parse(t, strings.Replace(good, "branch=z9hG4bK1", "branch=z9hG4bKa", 1))
	first.SetSource("x")
	second := parse(t, strings.Replace(good, "branch=z9hG4bK1", "branch=z9hG4bKb", 1))
	second.SetSource("x")
	g.tap(first)
	passed := make(chan struct{})
	go func() { g.tap(second); close(passed) }()
	select {
	case <-passed:
		t.Fatal("the second did not wait for the first")
	case <-time.After(gateWait / 5):
	}
	g.leave(first, "x", first.CallID())
	<-passed
	g.leave(second, "x", second.CallID())
	if len(g.waiting) != 0 {
		t.Error("the gate keeps messages that have passed")
	}
}
