package mdns

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/hallway-home/hallway/discovery/multicast"
)

const hallwayType = "_hallway._tcp.local."

func typeEnumeration() dns.RR {
	return &dns.PTR{Hdr: header(allTypes, dns.TypePTR, dns.ClassINET, ttlOther), Ptr: hallwayType}
}

// RFC 6762 section 7.3.
func TestQuestionsOfOthersSpareOurs(t *testing.T) {
	for _, c := range []struct {
		name   string
		others func(*dns.Msg) // changes the other host's question
		from   []string
		asks   bool
	}{
		{"asked in both families", nil, []string{"10.0.0.7:5353", "[fe80::7]:5353"}, false},
		{"asked in one of our two families", nil, []string{"10.0.0.7:5353"}, true},
		{"for a unicast answer", func(m *dns.Msg) { m.Question[0].Qclass |= flush }, []string{"10.0.0.7:5353", "[fe80::7]:5353"}, true},
		{"by a plain resolver", nil, []string{"10.0.0.7:9999", "[fe80::7]:9999"}, true},
		{"who knows what we do not", func(m *dns.Msg) { m.Answer = announcement("TV", "tv.local.", "10.0.0.8", ttlOther).Answer[:1] },
			[]string{"10.0.0.7:5353", "[fe80::7]:5353"}, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := &lan{}
			h := newHost("b")
			h.plug(l, 1, "10.0.0.2/24", "fe80::2/64")
			b := start(t, h)
			b.Browse("_hallway._tcp")
			pause(900 * time.Millisecond) // asked once; the next time is 1 to 1.1 s after that
			q := new(dns.Msg)
			q.Question = []dns.Question{question(hallwayType, dns.TypePTR)}
			if c.others != nil {
				c.others(q)
			}
			for _, src := range c.from {
				h.hear(t, 1, src, q)
			}
			since := time.Now()
			pause(600 * time.Millisecond)
			if asked := len(questions(l.by("b", since))) > 0; asked != c.asks {
				t.Errorf("%s: our own question was asked: %v", c.name, asked)
			}
			pause(3 * time.Second) // the one after that is asked in any case
			if len(questions(l.by("b", since))) == 0 {
				t.Errorf("%s: never asked again", c.name)
			}
		})
	}
}

// RFC 6762 section 7.4.
func TestAnswersOfOthersSpareOurs(t *testing.T) {
	for _, c := range []struct {
		name string
		ttl  uint32
		from string
		says bool
	}{
		{"the same answer", ttlOther, "10.0.0.7:5353", false},
		{"with a shorter life", ttlOther - 1, "10.0.0.7:5353", true},
		{"in the family that nobody asked in", ttlOther, "[fe80::7]:5353", true},
	} {
		synctest.Test(t, func(t *testing.T) {
			l, a, _ := pair(t)
			a.Announce(tv("TV", "hw-1"))
			pause(5 * time.Second)
			q, other := new(dns.Msg), response()
			q.Question = []dns.Question{question(allTypes, dns.TypePTR)}
			other.Answer = []dns.RR{typeEnumeration()}
			other.Answer[0].Header().Ttl = c.ttl
			since := time.Now()
			a.host.hear(t, 1, "10.0.0.3:5353", q)
			synctest.Wait()
			a.host.hear(t, 1, c.from, other)
			pause(200 * time.Millisecond)
			if said := len(responses(l.by("a", since))) > 0; said != c.says {
				t.Errorf("%s: our own answer was sent: %v", c.name, said)
			}
		})
	}
}

// RFC 6762 section 6.4: one packet answers for all services.
func TestAnswersAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, _ := pair(t)
		for _, n := range []string{"One", "Two", "Three"} {
			a.Announce(tv(n, "hw-1"))
		}
		pause(5 * time.Second)
		q := new(dns.Msg)
		q.Question = []dns.Question{question(hallwayType, dns.TypePTR)}
		since := time.Now()
		a.host.hear(t, 1, "10.0.0.3:5353", q)
		pause(15 * time.Millisecond)
		a.host.hear(t, 1, "10.0.0.4:5353", q) // a second asker while the first waits
		pause(200 * time.Millisecond)
		got := onceEach(responses(l.by("a", since)))
		if len(got) != 1 || len(got[0].msg.Answer) != 3 {
			t.Fatalf("%d packets: %v", len(got), got)
		}
		addrs := 0
		for _, rr := range got[0].msg.Extra {
			if _, ok := rrAddr(rr); ok {
				addrs++
			}
		}
		if addrs != 2 {
			t.Errorf("the two addresses of the one host came %d times", addrs)
		}
	})
}

// RFC 6762 section 8.1: what begins together is probed for, announced and taken back
// together.
func TestManyServicesTakeFewPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := pair(t)
		b.Browse("_hallway._tcp")
		pause(time.Second)
		const n = 20
		for i := range n {
			a.Announce(tv(fmt.Sprint("Thing ", i), "hw-1"))
		}
		pause(3 * time.Second)
		probes, news := onceEach(questions(l.by("a", time.Time{}))), onceEach(responses(l.by("a", time.Time{})))
		if len(probes) > 3*4 || len(news) > 2*4 {
			t.Errorf("%d probes and %d announcements for %d services", len(probes), len(news), n)
		}
		for _, p := range append(probes, news...) {
			if size := p.msg.Len(); size > maxPacket {
				t.Errorf("a packet has %d bytes", size)
			}
		}
		if got := b.visible(); len(got) != n {
			t.Errorf("%d visible", len(got))
		}
		since := time.Now()
		a.stop()
		pause(2 * time.Second)
		if byes := onceEach(l.by("a", since)); len(byes) > 4 || len(b.visible()) != 0 {
			t.Errorf("%d packets to say goodbye, %d still visible", len(byes), len(b.visible()))
		}
	})
}

// RFC 6762 section 10.2: a set with the cache-flush bit is sent whole or not at all.
func TestUniqueSetsStayWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lan{}
		h := newHost("a")
		h.plug(l, 1, "10.0.0.1/24", "10.0.0.9/24", "fe80::1/64")
		a := start(t, h)
		a.Announce(tv("TV", "hw-1"))
		pause(5 * time.Second)
		q := new(dns.Msg)
		q.Question = []dns.Question{question("hw-1.local.", dns.TypeA)}
		q.Answer = []dns.RR{&dns.A{Hdr: header("hw-1.local.", dns.TypeA, dns.ClassINET, 100), A: net.IPv4(10, 0, 0, 1)}}
		since := time.Now()
		h.hear(t, 1, "10.0.0.3:5353", q)
		synctest.Wait()
		got := responses(l.by("a", since))
		if len(got) == 0 || len(got[0].msg.Answer) != 2 || !has(got[0].msg.Extra, "fe80::1") {
			t.Fatalf("asked with one of two addresses known: %v", got)
		}
		pause(5 * time.Second)
		q.Answer = append(q.Answer, &dns.A{Hdr: header("hw-1.local.", dns.TypeA, dns.ClassINET, 100), A: net.IPv4(10, 0, 0, 9)})
		since = time.Now()
		h.hear(t, 1, "10.0.0.3:5353", q)
		synctest.Wait()
		if got := responses(l.by("a", since)); len(got) != 0 {
			t.Errorf("answered although all is known: %v", got[0].msg)
		}
	})
}

func TestExtrasFitAsSetsOrNotAtAll(t *testing.T) {
	one := func(host string, n byte) dns.RR {
		return &dns.A{Hdr: header(host, dns.TypeA, dns.ClassINET|flush, 120), A: net.IPv4(10, 0, 0, n)}
	}
	rrs := []dns.RR{one("a.local.", 1), one("bb.local.", 1), one("a.local.", 2), one("bb.local.", 2)}
	size := maxPacket - dns.Len(rrs[0]) - dns.Len(rrs[2]) // room for one set
	if got := fitting(rrs, &size); len(got) != 2 || got[0] != rrs[0] || got[1] != rrs[2] || size != maxPacket {
		t.Errorf("%v, size %d", got, size)
	}
	size = maxPacket - dns.Len(rrs[0]) // room for half a set
	if got := fitting(rrs, &size); len(got) != 0 {
		t.Errorf("half a set: %v", got)
	}
}

// RFC 6762 sections 6.6 and 10.1: who says goodbye for us is corrected, once a second.
func TestGoodbyeByAnotherIsRescued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := pair(t)
		b.Browse("_hallway._tcp")
		a.Announce(tv("TV", "hw-1"))
		pause(10 * time.Second)
		since := time.Now()
		for range 20 {
			for _, x := range []*agent{a, b} {
				x.host.hear(t, 1, "10.0.0.66:5353", goodbyeFor(t, l))
			}
			pause(50 * time.Millisecond)
		}
		pause(2 * time.Second)
		got := onceEach(responses(l.by("a", since)))
		if len(got) == 0 || len(got) > 3 {
			t.Errorf("%d corrections of 20 forged goodbyes in a second", len(got))
		}
		if r := b.reports(); len(r) != 1 {
			t.Errorf("a forged goodbye was believed: %+v", r)
		}
	})
}

// goodbyeFor forges a goodbye for all that was announced first.
func goodbyeFor(t *testing.T, l *lan) *dns.Msg {
	t.Helper()
	m := response()
	for _, rr := range responses(l.by("a", time.Time{}))[0].msg.Answer {
		c := dns.Copy(rr)
		c.Header().Ttl = 0
		m.Answer = append(m.Answer, c)
	}
	return m
}

// RFC 6762 sections 5.5 and 11: what comes by unicast may come from anywhere.
func TestUnicastIsNoSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := pair(t)
		b.Browse("_hallway._tcp")
		a.Announce(tv("TV", "hw-1"))
		pause(5 * time.Second)
		direct := func(h *memHost, m *dns.Msg) {
			data, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			h.in <- multicast.Packet{Data: data, From: netip.MustParseAddrPort("10.0.0.66:5353"), Iface: 1}
		}
		direct(b.host, announcement("Forged", "forged.local.", "10.0.0.66", 120))
		direct(b.host, goodbyeFor(t, l))
		q := new(dns.Msg)
		q.Question = []dns.Question{question("hw-1.local.", dns.TypeA)}
		since := time.Now()
		for range 10 * unicastPerSecond {
			direct(a.host, q)
		}
		pause(2 * time.Second)
		if got := b.visible(); !slices.Equal(got, []string{"TV"}) {
			t.Errorf("visible %v", got)
		}
		got := a.host.sentDirect()
		if len(got) == 0 || len(got) > unicastPerSecond || len(responses(l.by("a", since))) != 0 {
			t.Errorf("%d unicast and %d multicast answers to %d direct questions", len(got), len(responses(l.by("a", since))), 10*unicastPerSecond)
		}
	})
}
