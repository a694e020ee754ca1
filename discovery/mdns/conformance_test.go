package mdns

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/hallway-home/hallway/discovery/multicast"
	"github.com/hallway-home/hallway/discovery/sourcetest"
)

// The suite of all sources, with a camera that another program announces.
func TestConformance(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Peer {
		h := newHost("we")
		h.plug(&lan{}, 1, "10.0.0.1/24", "fe80::1/64")
		h.plug(&lan{}, 2, "10.0.0.2/24", "fe80::2/64")
		e := New(Config{network: h})
		e.Browse("_rtsp._tcp")
		const full, host, ttl = "Cam._rtsp._tcp.local.", "cam.local.", 120
		camera := func(version int, ttl uint32) *dns.Msg {
			m := response()
			m.Answer = []dns.RR{
				&dns.PTR{Hdr: header("_rtsp._tcp.local.", dns.TypePTR, dns.ClassINET, ttl), Ptr: full},
				&dns.SRV{Hdr: header(full, dns.TypeSRV, dns.ClassINET|flush, ttl), Port: 554, Target: host},
				&dns.TXT{Hdr: header(full, dns.TypeTXT, dns.ClassINET|flush, ttl), Txt: []string{fmt.Sprintf("path=/%d", version)}},
				&dns.A{Hdr: header(host, dns.TypeA, dns.ClassINET|flush, ttl), A: net.ParseIP("10.0.0.9")},
			}
			return m
		}
		raw := func(b []byte) {
			for i := range h.Links() {
				h.in <- multicast.Packet{Data: b, From: netip.MustParseAddrPort("10.0.0.9:5353"), Iface: i, Group: true}
			}
		}
		say := func(m *dns.Msg) {
			b, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			raw(b)
		}
		stolen := camera(9, ttl)
		stolen.Answer[3] = &dns.A{Hdr: header(host, dns.TypeA, dns.ClassINET|flush, ttl), A: net.ParseIP("8.8.8.8")}
		stolen.Answer = stolen.Answer[3:] // an address that leads away, and nothing else
		away, err := stolen.Pack()
		if err != nil {
			t.Fatal(err)
		}
		good, err := camera(9, ttl).Pack()
		if err != nil {
			t.Fatal(err)
		}
		return sourcetest.Peer{
			Source: e, Life: ttl * time.Second,
			Say:    func(v int) { say(camera(v, ttl)) },
			Bye:    func() { say(camera(1, 0)) },
			Hear:   raw,
			Broken: [][]byte{away, good[:len(good)/2], good[:11], {}},
		}
	})
}
