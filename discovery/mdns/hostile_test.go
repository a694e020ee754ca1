package mdns

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/discovery/multicast"
)

type sighting = discovery.Sighting

// announcement is a whole service by hand, as an attacker or another program would say it.
func announcement(instance, host, addr string, ttl uint32) *dns.Msg {
	full := escape(instance) + "._hallway._tcp.local."
	m := response()
	m.Answer = []dns.RR{
		&dns.PTR{Hdr: header("_hallway._tcp.local.", dns.TypePTR, dns.ClassINET, ttl), Ptr: full},
		&dns.SRV{Hdr: header(full, dns.TypeSRV, dns.ClassINET|flush, ttl), Port: 1, Target: host},
		&dns.TXT{Hdr: header(full, dns.TypeTXT, dns.ClassINET|flush, ttl), Txt: []string{"txtvers=1"}},
		&dns.A{Hdr: header(host, dns.TypeA, dns.ClassINET|flush, ttl), A: net.ParseIP(addr)},
	}
	return m
}

func TestOnLinkSourceIsChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := pair(t)
		b.Browse("_hallway._tcp")
		a.Announce(tv("TV", "hw-1"))
		pause(5 * time.Second)
		quiet := time.Now()
		for _, src := range []string{"8.8.8.8:5353", "10.0.1.2:5353", "[2001:db8::1]:5353"} {
			b.host.hear(t, 1, src, announcement("Forged", "forged.local.", "10.0.0.66", 120))
			b.host.hear(t, 1, src, announcement("TV", "hw-1.local.", "10.0.0.1", 0)) // a forged goodbye
			q := new(dns.Msg)
			q.Question = []dns.Question{question("hw-1.local.", dns.TypeA)}
			a.host.hear(t, 1, src, q)
			a.host.hear(t, 1, strings.Replace(src, "5353", "40000", 1), q)
		}
		b.host.hear(t, 9, "10.0.0.5:5353", announcement("No such interface", "x.local.", "10.0.0.66", 120))
		pause(3 * time.Second)
		if got := b.visible(); !slices.Equal(got, []string{"TV"}) {
			t.Errorf("off-link packets changed what is seen: %v", got)
		}
		if len(responses(l.by("a", quiet))) != 0 || len(a.host.sentDirect()) != 0 {
			t.Error("an off-link question was answered")
		}
		// The same from the link counts, so the test can see a difference.
		b.host.hear(t, 1, "10.0.0.66:5353", announcement("Real", "real.local.", "10.0.0.66", 120))
		pause(time.Second)
		if got := b.visible(); !slices.Equal(got, []string{"Real", "TV"}) {
			t.Errorf("visible %v", got)
		}
	})
}

func TestAddressesThatLeadAwayAreRefused(t *testing.T) {
	l := multicast.Link{Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("203.0.113.5/24"), netip.MustParsePrefix("2001:db8:1::5/64")}}
	lo := multicast.Link{Name: "lo", Loopback: true, Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}}
	for _, c := range []struct {
		l    multicast.Link
		addr string
		want bool
	}{
		{l, "203.0.113.9", true}, {l, "198.51.100.1", false}, {l, "192.168.3.4", true}, {l, "127.0.0.1", false},
		{l, "0.0.0.0", false}, {l, "224.0.0.251", false}, {l, "169.254.3.4", true}, {l, "2001:db8:1::9", true},
		{l, "2001:db8:2::9", false}, {l, "fd00::1", true}, {l, "fe80::1", true}, {l, "::1", false}, {lo, "127.0.0.1", true},
	} {
		if got := plausible(c.l, netip.MustParseAddr(c.addr)); got != c.want {
			t.Errorf("%s on %s: %v", c.addr, c.l.Name, got)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		_, _, b := pair(t)
		b.Browse("_hallway._tcp")
		synctest.Wait()
		b.host.hear(t, 1, "10.0.0.66:5353", announcement("Away", "away.local.", "8.8.8.8", 120))
		b.host.hear(t, 1, "10.0.0.66:5353", announcement("Self", "self.local.", "127.0.0.1", 120))
		pause(time.Second)
		if got := b.reports(); len(got) != 0 {
			t.Errorf("reported %+v", got)
		}
	})
}

func TestFloodIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := pair(t)
		b.Browse("_hallway._tcp")
		synctest.Wait()
		for i := range 3000 { // one source, then a thousand
			src := "10.0.0.66:5353"
			if i >= 1000 {
				src = fmt.Sprintf("169.254.%d.%d:5353", i/250, i%250)
			}
			b.host.hear(t, 1, src, announcement(fmt.Sprint("x", i), fmt.Sprintf("x%d.local.", i), "10.0.0.66", 1<<31))
			if i%1000 == 0 {
				synctest.Wait()
			}
		}
		pause(time.Second)
		if n := len(b.visible()); n > maxInstances {
			t.Errorf("%d things remembered", n)
		}
		one := 0
		for _, s := range b.reports() {
			var n int
			if _, err := fmt.Sscanf(s.Instance, "x%d", &n); err == nil && n < 1000 {
				one++
			}
		}
		if one > 200 {
			t.Errorf("one source made %d things in a moment", one)
		}
		_, err := b.ResolveHost(t.Context(), "x0.local")
		if err != nil {
			t.Error(err)
		}
		// Who was known before the flood is still heard after it; nothing lives for 68 years.
		_ = a
		pause(2 * time.Hour)
		if n := len(b.visible()); n != 0 {
			t.Errorf("%d forged things outlived the longest TTL", n)
		}
	})
}

func TestCacheKeepsToItsBounds(t *testing.T) {
	c, now := newCache(), time.Now()
	for i := range 3 * maxEntries {
		rr := &dns.SRV{Hdr: header(fmt.Sprintf("x%d._a._tcp.local.", i), dns.TypeSRV, dns.ClassINET, 120), Target: "h.local."}
		c.put(entry{rr: rr, iface: 1, src: netip.AddrFrom4([4]byte{10, 0, 0, byte(i % 3)})}, now)
	}
	if c.size > maxEntries || c.bySource[netip.MustParseAddr("10.0.0.1")] > maxFromSource {
		t.Errorf("size %d, from one source %d", c.size, c.bySource[netip.MustParseAddr("10.0.0.1")])
	}
	for i := range 100 {
		rr := &dns.A{Hdr: header("h.local.", dns.TypeA, dns.ClassINET, 120), A: net.IPv4(10, 0, 1, byte(i))}
		c.put(entry{rr: rr, iface: 1, src: netip.MustParseAddr("10.0.0.9")}, now)
	}
	if n := len(c.get("h.local.", dns.TypeA, now)); n != maxOfName {
		t.Errorf("%d addresses of one host", n)
	}
	c.drop(func(*entry) bool { return true })
	if c.size != 0 || len(c.byName) != 0 || len(c.bySource) != 0 {
		t.Errorf("left after dropping all: %d, %d, %d", c.size, len(c.byName), len(c.bySource))
	}
}

func TestFlushBitEndsOlderRecords(t *testing.T) {
	c, now := newCache(), time.Now()
	put := func(ip byte, iface int, at time.Time) {
		rr := &dns.A{Hdr: header("h.local.", dns.TypeA, dns.ClassINET|flush, 120), A: net.IPv4(10, 0, 0, ip)}
		c.put(entry{rr: rr, iface: iface}, at)
	}
	put(1, 1, now)
	put(2, 1, now.Add(500*time.Millisecond)) // part of the same announcement: both stand
	put(3, 2, now.Add(5*time.Second))        // another link: says nothing about the first
	if n := len(c.get("h.local.", dns.TypeA, now.Add(7*time.Second))); n != 3 {
		t.Errorf("%d addresses, want 3", n)
	}
	put(4, 1, now.Add(10*time.Second))
	if n := len(c.get("h.local.", dns.TypeA, now.Add(10500*time.Millisecond))); n != 4 {
		t.Errorf("%d addresses within a second of the flush, want 4", n)
	}
	if n := len(c.get("h.local.", dns.TypeA, now.Add(11001*time.Millisecond))); n != 2 {
		t.Errorf("%d addresses after the flush, want 2", n)
	}
}

func TestUnicastAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, _ := pair(t)
		a.Announce(tv("TV", "hw-1"))
		pause(3 * time.Second)
		now := time.Now()
		qu := new(dns.Msg)
		qu.Question = []dns.Question{{Name: "hw-1.local.", Qtype: dns.TypeA, Qclass: dns.ClassINET | flush}}
		a.host.hear(t, 1, "10.0.0.2:5353", qu)
		legacy := new(dns.Msg)
		legacy.Id = 77
		legacy.Question = []dns.Question{question("_hallway._tcp.local.", dns.TypePTR)}
		a.host.hear(t, 1, "10.0.0.2:40000", legacy)
		pause(time.Second)
		got := a.host.sentDirect()
		if len(got) != 2 || len(responses(l.by("a", now))) != 0 {
			t.Fatalf("%d unicast answers", len(got))
		}
		if !has(got[0].Answer, "10.0.0.1") || got[0].Answer[0].Header().Class&flush == 0 {
			t.Errorf("QU answer: %v", got[0])
		}
		if g := got[1]; g.Id != 77 || len(g.Question) != 1 || g.Answer[0].Header().Ttl != legacyTTL || g.Answer[0].Header().Class != dns.ClassINET {
			t.Errorf("legacy answer: %v", g)
		}
		// Long after the last multicast, a QU question is answered to all.
		pause(40 * time.Second)
		now = time.Now()
		a.host.hear(t, 1, "10.0.0.2:5353", qu)
		synctest.Wait()
		if len(responses(l.by("a", now))) == 0 {
			t.Error("no multicast answer a quarter of the TTL later")
		}
	})
}

func TestNamesRoundTrip(t *testing.T) {
	every := make([]byte, 0, 256)
	for i := range 256 {
		every = append(every, byte(i))
	}
	for part := range slices.Chunk(every, maxLabel) {
		name := escape(string(part)) + "._hallway._tcp.local."
		m := new(dns.Msg)
		m.Answer = []dns.RR{&dns.TXT{Hdr: header(name, dns.TypeTXT, dns.ClassINET, 1), Txt: escapeText([]string{string(part)})}}
		data, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		var back dns.Msg
		if err := back.Unpack(data); err != nil {
			t.Fatal(err)
		}
		txt := back.Answer[0].(*dns.TXT)
		if txt.Hdr.Name != name || txt.Txt[0] != m.Answer[0].(*dns.TXT).Txt[0] {
			t.Errorf("written %q and %q, read %q and %q", name, m.Answer[0].(*dns.TXT).Txt[0], txt.Hdr.Name, txt.Txt[0])
		}
		if label, rest, ok := cutLabel(txt.Hdr.Name); !ok || label != string(part) || rest != "_hallway._tcp.local." {
			t.Errorf("%q came back as %q", part, label)
		}
		if got := unescapeText(txt.Txt)[0]; got != string(part) {
			t.Errorf("text %q came back as %q", part, got)
		}
	}
	if got := numbered(strings.Repeat("ü", 40), 12); len(got) > maxLabel || !strings.HasSuffix(got, "ü (12)") {
		t.Errorf("%q", got)
	}
	if got := numberedHost("tv.local", 2); got != "tv-2.local" {
		t.Errorf("%q", got)
	}
}

func TestEchoIsTakenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEchoes()
		p := multicast.Packet{Data: []byte("x"), From: netip.MustParseAddrPort("10.0.0.1:5353"), Iface: 1, Group: true}
		e.sent(1, false, p.Data)
		e.sent(1, false, p.Data)
		for i, want := range []bool{true, true, false} {
			if e.take(1, p) != want {
				t.Errorf("packet %d: two were sent, so two are echoes and the third is somebody else's", i+1)
			}
		}
		e.sent(1, false, p.Data)
		if e.take(2, p) {
			t.Error("taken on another link")
		}
		pause(echoFor + 1)
		if e.take(1, p) {
			t.Error("kept for ever")
		}
		e.sent(1, false, p.Data)
		if !e.take(1, p) || e.take(1, p) {
			t.Error("one that never came back counts with the next")
		}
	})
}

func FuzzMessage(f *testing.F) {
	for _, m := range []*dns.Msg{
		announcement("TV", "hw-1.local.", "10.0.0.1", 120), announcement("TV", "hw-1.local.", "10.0.0.1", 0),
		{Question: []dns.Question{question("_hallway._tcp.local.", dns.TypePTR), question("mine.local.", dns.TypeANY)}},
		{MsgHdr: dns.MsgHdr{Truncated: true}, Ns: announcement("Mine", "mine.local.", "10.0.0.1", 120).Answer},
		{Question: []dns.Question{{Name: "mine.local.", Qtype: dns.TypeA, Qclass: dns.ClassINET | flush}, question(appName+".", dns.TypeA)}},
		{MsgHdr: dns.MsgHdr{Truncated: true}, Question: []dns.Question{question(allTypes, dns.TypePTR)}, Answer: []dns.RR{typeEnumeration()}},
		{Answer: []dns.RR{typeEnumeration()}},
		announcement("Mine", "mine.local.", "10.0.0.1", 0),
	} {
		data, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h := newHost("a")
		h.plug(&lan{}, 1, "10.0.0.1/24")
		h.in = make(chan multicast.Packet, 1<<12)
		e := New(Config{network: h})
		e.report = func(sighting) {}
		e.loop.Links = h.Links()
		e.browses["_hallway._tcp.local."] = &browse{"_hallway._tcp.local.", "_hallway._tcp.local.", "_hallway._tcp"}
		r := &Registration{e: e, ready: map[int]bool{1: true}, said: map[int]bool{1: true}}
		r.want(tv("Mine", "mine"))
		s := &Registration{e: e, hostOnly: true, ready: map[int]bool{1: true}, said: map[int]bool{1: true}}
		s.want(Service{Host: appName})
		e.regs = append(e.regs, r, s)
		off := netip.MustParseAddrPort("192.0.2.1:5353")
		e.receive(e.loop.Links[1], multicast.Packet{Data: data, From: off, Iface: 1, Group: true})
		if e.cache.size != 0 || len(e.held)+len(e.lastSent)+e.allowance.Len()+len(e.delayed)+len(e.rescues)+len(e.heard) != 0 || len(h.direct) != 0 {
			t.Fatal("a packet from off the link changed something")
		}
		for _, src := range []string{"10.0.0.2:5353", "10.0.0.2:4000", "[fe80::2%eth1]:5353"} {
			for _, group := range []bool{true, false} {
				e.receive(e.loop.Links[1], multicast.Packet{Data: data, From: netip.MustParseAddrPort(src), Iface: 1, Group: group})
			}
		}
		e.show()
		for range 5 {
			e.loop.Agenda.Run(time.Now().Add(time.Hour))
		}
		if e.cache.size > maxEntries || len(e.heard) > maxQuestions || len(e.rescues) > 2*maxAddrs {
			t.Fatal("something has no bound")
		}
	})
}
