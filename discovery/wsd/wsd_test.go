package wsd

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/discovery/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const camera = "urn:uuid:5f5a69c2-e0ae-504f-829b-00aabbccddee"

// envelope is a message as gSOAP, which most cameras run, writes it.
func envelope(relates, body string) []byte {
	return fmt.Appendf(nil, `<?xml version="1.0" encoding="UTF-8"?>
<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://www.w3.org/2003/05/soap-envelope" xmlns:wsa="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery" xmlns:dn="http://www.onvif.org/ver10/network/wsdl" xmlns:tds="http://www.onvif.org/ver10/device/wsdl">
<SOAP-ENV:Header><wsa:MessageID>urn:uuid:1</wsa:MessageID><wsa:RelatesTo>%s</wsa:RelatesTo></SOAP-ENV:Header>
<SOAP-ENV:Body>%s</SOAP-ENV:Body></SOAP-ENV:Envelope>`, relates, body)
}

func about(id, types, scopes, xaddrs string) string {
	return "<wsa:EndpointReference><wsa:Address>" + id + "</wsa:Address></wsa:EndpointReference><d:Types>" + types + "</d:Types><d:Scopes>" + scopes +
		"</d:Scopes><d:XAddrs>" + xaddrs + "</d:XAddrs><d:MetadataVersion>1</d:MetadataVersion>"
}

func garden(version int) string {
	return about(camera, "dn:NetworkVideoTransmitter tds:Device",
		fmt.Sprintf("onvif://www.onvif.org/name/Garden%%20%d onvif://www.onvif.org/hardware/C1", version), "http://10.0.0.9/onvif/device_service")
}

func matches(relates, inner string) []byte {
	return envelope(relates, "<d:ProbeMatches><d:ProbeMatch>"+inner+"</d:ProbeMatch></d:ProbeMatches>")
}

func hello(inner string) []byte { return envelope("", "<d:Hello>"+inner+"</d:Hello>") }

func TestConformance(t *testing.T) {
	sourcetest.Run(t, func(*testing.T) sourcetest.Peer {
		n := sourcetest.NewNet()
		s := New(Config{network: n})
		const doctype = `<!DOCTYPE x [<!ENTITY e "Evil">]>`
		return sourcetest.Peer{
			Source: s, Life: life,
			Say: func(v int) {
				if v == 1 { // asked and unasked
					n.Hear("10.0.0.9:3702", false, matches(lastProbe(n), garden(v)))
				}
				n.Hear("10.0.0.9:3702", true, hello(garden(v)))
			},
			Bye: func() {
				n.Hear("10.0.0.9:3702", true, envelope("", "<d:Bye>"+about(camera, "", "", "")+"</d:Bye>"))
			},
			Hear: func(b []byte) { n.Hear("10.0.0.8:3702", true, b) },
			Broken: [][]byte{
				matches("urn:uuid:not-ours", garden(9)),
				matches("urn:uuid:not-ours", about("urn:uuid:other", "dn:NetworkVideoTransmitter", "", "")),
				hello(about("urn:uuid:pc", "wsdp:Device pub:Computer", "", "http://10.0.0.8/")),
				hello(about("", "dn:NetworkVideoTransmitter", "", "")), hello(about("urn:uuid:a b", "dn:NetworkVideoTransmitter", "", "")),
				[]byte(doctype + string(hello(about("urn:uuid:e", "dn:NetworkVideoTransmitter", "onvif://www.onvif.org/name/&e;", "")))),
				envelope("", "<d:Bye>"+about(camera, "", "", "")+"</d:Bye>"), // from a host that it was never heard from
				[]byte("<Hello/>"), []byte(strings.ReplaceAll(string(hello(garden(9))), "soap-envelope", "soap")), hello(garden(9))[:600],
			},
		}
	})
}

// lastProbe is the MessageID of the newest probe.
func lastProbe(n *sourcetest.Net) string {
	id := ""
	for _, s := range n.Sent(time.Time{}) {
		_, rest, _ := strings.Cut(string(s.Data), "<a:MessageID>")
		if v, _, ok := strings.Cut(rest, "<"); ok {
			id = v
		}
	}
	return id
}

func start(t *testing.T, s *Source) func() []discovery.Sighting {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var got []discovery.Sighting
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx, func(x discovery.Sighting) { got = append(got, x) }); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
	return func() []discovery.Sighting { synctest.Wait(); return slices.Clone(got) }
}

func TestProbesOnEveryLinkAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := sourcetest.NewNet()
		start(t, New(Config{network: n}))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		count := func(since time.Time) map[string]int {
			out := map[string]int{}
			for _, s := range n.Sent(since) {
				if s.To.IsValid() || !strings.Contains(string(s.Data), "<d:Types>dn:NetworkVideoTransmitter</d:Types>") {
					t.Errorf("sent to %v: %s", s.To, s.Data)
				}
				out[fmt.Sprintf("%d %v", s.Iface, s.V6)]++
			}
			return out
		}
		for _, k := range []string{"1 false", "1 true", "2 false", "2 true"} {
			if c := count(time.Time{}); c[k] != 3 {
				t.Errorf("%s: %v", k, c)
			}
		}
		late := time.Now()
		n.Plug(3, "192.168.7.1/24")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if c := count(late); c["3 false"] != 3 || len(c) != 1 {
			t.Errorf("after a late interface: %v", c)
		}
		later := time.Now()
		time.Sleep(probeAgain)
		synctest.Wait()
		if c := count(later); len(c) != 5 {
			t.Errorf("after a minute: %v", c)
		}
	})
}

func TestOnlyTheLinkAndOnlyItsOwnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := sourcetest.NewNet()
		got := start(t, New(Config{network: n}))
		for _, src := range []string{"8.8.8.8:3702", "10.0.1.9:3702", "[2001:db8::1]:3702"} {
			n.HearOn(1, src, true, hello(garden(1)))
		}
		time.Sleep(time.Second)
		if g := got(); len(g) != 0 {
			t.Fatalf("from off the link: %+v", g)
		}
		for xaddr, want := range map[string]string{
			"http://10.0.0.9/onvif": "10.0.0.9:80", "https://10.0.0.9/onvif": "10.0.0.9:443", "http://10.0.0.66:81/x http://10.0.0.9:8080/y": "10.0.0.9:8080",
			"http://8.8.8.8/onvif": "10.0.0.9:3702", "": "10.0.0.9:3702", "ftp://10.0.0.9/": "10.0.0.9:3702", "http://10.0.0.9:0/": "10.0.0.9:3702",
		} {
			e := endpoint{xaddrs: strings.Fields(xaddr)}
			if a := e.address(netip.MustParseAddrPort("10.0.0.9:3702")); a.String() != want {
				t.Errorf("%q: %s, want %s", xaddr, a, want)
			}
		}
		n.HearOn(2, "[fe80::9]:3702", true, hello(garden(1)))
		time.Sleep(time.Second)
		if g := got(); len(g) != 1 || g[0].Instance != "Garden 1" || g[0].Kind != Kind || g[0].Addrs[0].String() != "[fe80::9%eth2]:3702" || g[0].Text[0] != "model=C1" {
			t.Errorf("%+v", g)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range [][]byte{
		hello(garden(1)), matches("urn:uuid:1", garden(1)), envelope("", "<d:Bye>"+about(camera, "", "", "")+"</d:Bye>"), probe(newID()),
		[]byte(`<!DOCTYPE x>`), []byte("<a><b/></a>"), hello(garden(1))[:400], {},
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parse(data)
		if err != nil {
			return
		}
		if m.action == "" || len(m.endpoints) == 0 || len(m.endpoints) > maxMatches {
			t.Fatalf("%+v", m)
		}
		from := netip.MustParseAddrPort("10.0.0.9:3702")
		for _, e := range m.endpoints {
			s := sighting(e, from)
			if s.ID == "" || len(s.ID) > maxAddress || s.Instance == "" || len([]rune(s.Instance)) > discovery.MaxLine || strings.ContainsAny(s.ID+s.Instance, "\r\n\x00\x1b") {
				t.Fatalf("%+v", s)
			}
			if s.Addrs[0].Addr() != from.Addr() {
				t.Fatalf("%v", s.Addrs)
			}
		}
	})
}
