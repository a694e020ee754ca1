package main

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/miekg/dns"
)

const hallwayType = "_hallway._tcp.local."

var (
	mdnsGroup = netip.MustParseAddrPort("224.0.0.251:5353")
	ssdpGroup = netip.MustParseAddrPort("239.255.255.250:1900")
)

type datagramAttack struct {
	name string
	make func(s *stranger, n int) (datagram, bool)
}

func datagramAttacks() []datagramAttack {
	return []datagramAttack{
		{"mDNS noise", mdnsNoise},
		{"mDNS cut short", mdnsTruncated},
		{"forged goodbye", forgedGoodbye},
		{"forged conflict", forgedConflict},
		{"forged probe", forgedProbe},
		{"invented node", inventedNode},
		{"invented service", inventedService},
		{"off-link query", offLinkQuery},
		{"off-link answer", offLinkAnswer},
		{"query", query},
		{"SSDP noise", ssdpNoise},
		{"media noise", mediaNoise},
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func (s *stranger) target(n int) netip.Addr { return s.targets[n%len(s.targets)] }
func (s *stranger) name(n int) string       { return s.names[n%len(s.names)] }

// mdns is a multicast from the true mDNS port of an address.
func mdns(from netip.Addr, m *dns.Msg) (datagram, bool) {
	b, err := m.Pack()
	return datagram{netip.AddrPortFrom(from, 5353), mdnsGroup, 255, b}, err == nil
}

func header(name string, rrtype uint16, ttl uint32, unique bool) dns.RR_Header {
	h := dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
	if unique {
		h.Class |= 1 << 15 // cache-flush (RFC 6762 section 10.2)
	}
	return h
}

func answer(rr ...dns.RR) *dns.Msg {
	m := &dns.Msg{Answer: rr}
	m.Response, m.Authoritative = true, true
	return m
}

// claims are the records of a node, pointing elsewhere.
func claims(name, host string, addr netip.Addr, ttl uint32, id string) []dns.RR {
	full := name + "." + hallwayType
	return []dns.RR{
		&dns.PTR{Hdr: header(hallwayType, dns.TypePTR, ttl, false), Ptr: full},
		&dns.SRV{Hdr: header(full, dns.TypeSRV, ttl, true), Port: 5061, Target: host},
		&dns.TXT{Hdr: header(full, dns.TypeTXT, ttl, true), Txt: []string{"txtvers=1", "id=" + id, "class=tv", "pair=1"}},
		&dns.A{Hdr: header(host, dns.TypeA, ttl, true), A: net.IP(addr.AsSlice())},
	}
}

// hostOf is the host name of a node, from its instance name "Hallway-<8 hex>".
func hostOf(name string) string { return "hw-" + name[len(name)-8:] + ".local." }

func mdnsNoise(s *stranger, n int) (datagram, bool) {
	b := noise(20 + n%1400)
	if n%2 == 0 { // a plausible header before it
		copy(b, []byte{0, 0, 0x84, 0, 0, 0, 0, 9, 0, 0, 0, 9})
	}
	return datagram{netip.AddrPortFrom(s.self, 5353), mdnsGroup, 255, b}, true
}

func mdnsTruncated(s *stranger, n int) (datagram, bool) {
	d, ok := mdns(s.self, answer(claims(s.name(n), hostOf(s.name(n)), s.self, 120, "0123456789abcdef")...))
	d.data = d.data[:n%len(d.data)]
	if n%7 == 0 && len(d.data) > 14 { // a name that points at itself (RFC 1035 section 4.1.4)
		copy(d.data[12:], []byte{0xc0, 12})
	}
	return d, ok
}

// forgedGoodbye says that a node left, in its own name and address, or in ours.
func forgedGoodbye(s *stranger, n int) (datagram, bool) {
	from := s.self
	if n%2 == 0 {
		from = s.target(n)
	}
	return mdns(from, answer(claims(s.name(n), hostOf(s.name(n)), s.target(n), 0, "0123456789abcdef")...))
}

// forgedConflict claims the names of a node.
func forgedConflict(s *stranger, n int) (datagram, bool) {
	return mdns(s.self, answer(claims(s.name(n), hostOf(s.name(n)), s.self, 120, "0123456789abcdef")...))
}

// forgedProbe is a simultaneous probe that wins every comparison (RFC 6762 section 8.2).
func forgedProbe(s *stranger, n int) (datagram, bool) {
	full := s.name(n) + "." + hallwayType
	m := &dns.Msg{Question: []dns.Question{{Name: full, Qtype: dns.TypeANY, Qclass: dns.ClassINET}, {Name: hostOf(s.name(n)), Qtype: dns.TypeANY, Qclass: dns.ClassINET}}}
	m.Ns = []dns.RR{
		&dns.SRV{Hdr: header(full, dns.TypeSRV, 120, false), Priority: 65535, Weight: 65535, Port: 65535, Target: "z.local."},
		&dns.A{Hdr: header(hostOf(s.name(n)), dns.TypeA, 120, false), A: net.IP{255, 255, 255, 254}},
	}
	return mdns(s.self, m)
}

func inventedNode(s *stranger, n int) (datagram, bool) {
	id := fmt.Sprintf("%016x", n+1)
	return mdns(s.self, answer(claims("Hallway-"+id[8:], "hw-"+id[8:]+".local.", s.target(n), 120, id)...))
}

func inventedService(s *stranger, n int) (datagram, bool) {
	full := fmt.Sprintf("Thing %d._rtsp._tcp.local.", n)
	return mdns(s.self, answer(
		&dns.PTR{Hdr: header("_rtsp._tcp.local.", dns.TypePTR, 4500, false), Ptr: full},
		&dns.SRV{Hdr: header(full, dns.TypeSRV, 120, true), Port: 554, Target: "thing.local."},
		&dns.TXT{Hdr: header(full, dns.TypeTXT, 4500, true), Txt: []string{fmt.Sprintf("x=%200d", n)}},
		&dns.A{Hdr: header("thing.local.", dns.TypeA, 120, true), A: net.IP(s.self.AsSlice())},
	))
}

// elsewhere is an address that is on nobody's link.
var elsewhere = netip.MustParseAddr("203.0.113.9")

func ask(s *stranger, n int) *dns.Msg {
	return &dns.Msg{Question: []dns.Question{{Name: hallwayType, Qtype: dns.TypePTR, Qclass: dns.ClassINET}, {Name: hostOf(s.name(n)), Qtype: dns.TypeANY, Qclass: dns.ClassINET}}}
}

// offLinkQuery wants an answer to be sent out of the house, from any port.
func offLinkQuery(s *stranger, n int) (datagram, bool) {
	d, ok := mdns(elsewhere, ask(s, n))
	d.src = netip.AddrPortFrom(elsewhere, uint16(1024+n%60000))
	if n%2 == 0 {
		d.dst = netip.AddrPortFrom(s.target(n), 5353)
	}
	return d, ok
}

func offLinkAnswer(s *stranger, n int) (datagram, bool) {
	return mdns(elsewhere, answer(claims(s.name(n), hostOf(s.name(n)), elsewhere, 0, "0123456789abcdef")...))
}

func query(s *stranger, n int) (datagram, bool) {
	d, ok := mdns(s.self, ask(s, n))
	if n%2 == 0 {
		d.src = netip.AddrPortFrom(s.self, uint16(1024+n%60000))
	}
	return d, ok
}

func ssdpNoise(s *stranger, n int) (datagram, bool) {
	texts := []string{
		"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 0\r\nST: ssdp:all\r\n\r\n",
		"NOTIFY * HTTP/1.1\r\nHOST: x\r\nNT: upnp:rootdevice\r\nNTS: ssdp:alive\r\nUSN: uuid:" + fmt.Sprint(n) + "\r\nLOCATION: http://203.0.113.9/x.xml\r\nCACHE-CONTROL: max-age=999999999\r\n\r\n",
		"NOTIFY * HTTP/1.1\r\nNTS: ssdp:byebye\r\nNT: upnp:rootdevice\r\nUSN: uuid:x\r\n\r\n",
		string(noise(300)),
	}
	to := ssdpGroup
	if n%3 == 0 {
		to = netip.AddrPortFrom(s.target(n), 1900)
	}
	from := s.self
	if n%5 == 0 {
		from = elsewhere
	}
	return datagram{netip.AddrPortFrom(from, uint16(1024+n%60000)), to, 2, []byte(texts[n%len(texts)])}, true
}

// mediaNoise looks like STUN, RTP, RTCP or DTLS (RFC 7983), from the other side's address
// as often as from our own.
func mediaNoise(s *stranger, n int) (datagram, bool) {
	b := noise(40 + n%1000)
	switch n % 5 {
	case 0: // STUN binding request with a broken body
		copy(b, []byte{0, 1, 0, 20, 0x21, 0x12, 0xa4, 0x42})
	case 1: // RTP
		b[0] = 0x80
	case 2: // RTCP bye
		copy(b, []byte{0x81, 203, 0, 1})
	case 3: // DTLS ClientHello, cut
		copy(b, []byte{22, 0xfe, 0xfd, 0, 0})
		binary.BigEndian.PutUint16(b[11:], uint16(len(b)-13))
	}
	from := s.self
	if n%2 == 0 {
		from = s.target(n + 1)
	}
	port := s.media[n%len(s.media)]
	return datagram{netip.AddrPortFrom(from, uint16(s.media[(n+1)%len(s.media)])), netip.AddrPortFrom(s.target(n), uint16(port)), 64, b}, true
}
