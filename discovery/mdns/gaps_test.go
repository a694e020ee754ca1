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
)

// A device on two networks has one name. Where it had another before, that one ends with
// a goodbye, so that nobody lists both; the first holder of the name is left alone.
func TestRenamedOnOneLinkSaysGoodbyeOnTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wired, wireless := &lan{}, &lan{}
		a, b, c := newHost("a"), newHost("b"), newHost("c")
		a.plug(wired, 1, "10.0.0.1/24")
		b.plug(wired, 1, "10.0.0.2/24")
		c.plug(wireless, 1, "10.1.0.3/24")
		one, onWire, first := start(t, a), start(t, b), start(t, c)
		first.Announce(tv("TV", "hw-3"))
		r := one.Announce(tv("TV", "hw-1"))
		onWire.Browse("_hallway._tcp")
		pause(5 * time.Second)
		if got := onWire.visible(); !slices.Equal(got, []string{"TV"}) {
			t.Fatalf("visible at first: %v", got)
		}
		a.plug(wireless, 2, "10.1.0.1/24")
		since := time.Now()
		pause(5 * time.Second)
		if got := onWire.visible(); r.Instance() != "TV (2)" || !slices.Equal(got, []string{"TV (2)"}) {
			t.Errorf("named %q, visible %v", r.Instance(), got)
		}
		for _, s := range responses(wireless.by("a", since)) {
			if has(s.msg.Answer, "\tTV._hallway") {
				t.Errorf("spoke for the name of another: %v", s.msg)
			}
		}
	})
}

// Losing a tie-break on a new link takes nothing away where the name is ours.
func TestTieBreakOnALateLinkLeavesTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wired, wireless := &lan{}, &lan{}
		a := newHost("a")
		a.plug(wired, 1, "10.0.0.1/24")
		one := start(t, a)
		one.Announce(tv("TV", "hw-1"))
		pause(5 * time.Second)
		a.plug(wireless, 2, "10.1.0.1/24")
		pause(300 * time.Millisecond)
		probe := new(dns.Msg)
		full := "TV._hallway._tcp.local."
		probe.Question = []dns.Question{question(full, dns.TypeANY)}
		probe.Ns = []dns.RR{&dns.SRV{Hdr: header(full, dns.TypeSRV, dns.ClassINET, 120), Port: 9999, Target: "x.local."}}
		a.hear(t, 2, "10.1.0.9:5353", probe)
		synctest.Wait()
		since := time.Now()
		q := new(dns.Msg)
		q.Question = []dns.Question{question(full, dns.TypeSRV)}
		a.hear(t, 1, "10.0.0.9:5353", q)
		pause(900 * time.Millisecond)
		if len(responses(wired.by("a", since))) == 0 {
			t.Error("the name was given up on the first link")
		}
		if got := wireless.by("a", since); len(got) != 0 {
			t.Errorf("did not wait a second after losing: %v", got)
		}
		pause(3 * time.Second)
		if got := wireless.by("a", since); len(questions(got)) != 3 || len(responses(got)) != 2 {
			t.Errorf("%d probes and %d announcements afterwards", len(questions(got)), len(responses(got)))
		}
	})
}

// One engine speaks for two things of one name; its own packets never tell it.
func TestOwnNamesAreDistinct(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := pair(t)
		b.Browse("_hallway._tcp", "_http._tcp")
		one, two := a.Announce(tv("TV", "hw-1")), a.Announce(tv("tv", "hw-1"))
		other := tv("TV", "hw-1")
		other.Type = "_http._tcp"
		three := a.Announce(other)
		pause(5 * time.Second)
		if one.Instance() != "TV" || two.Instance() != "tv (2)" || three.Instance() != "TV" {
			t.Errorf("names %q, %q and %q", one.Instance(), two.Instance(), three.Instance())
		}
		if got := b.visible(); !slices.Equal(got, []string{"TV", "tv (2)"}) {
			t.Errorf("visible %v", got)
		}
	})
}

// RFC 6763 section 6.1: no TXT record means the same as an empty one.
func TestServiceWithoutTextIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, b := pair(t)
		b.Browse("_hallway._tcp")
		pause(time.Second)
		m := announcement("Bare", "bare.local.", "10.0.0.8", 4500)
		m.Answer = slices.Delete(m.Answer, 2, 3)
		b.host.hear(t, 1, "10.0.0.8:5353", m)
		pause(10 * time.Second)
		if got := b.reports(); len(got) != 1 || len(got[0].Text) != 0 {
			t.Fatalf("%+v", got)
		}
		pause(fillPause) // it will be asked for anew
		b.host.hear(t, 1, "10.0.0.9:5353", announcement("Other", "other.local.", "10.0.0.9", 4500))
		pause(time.Minute)
		if got := b.reports(); len(got) != 2 || got[1].Instance != "Other" {
			t.Errorf("it flaps: %+v", got)
		}
	})
}

// RFC 6762 section 5.2: 80, 85, 90 and 95 %, each up to 2 % later, and only for what is of
// interest.
func TestRefreshTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _, b := pair(t)
		b.Browse("_hallway._tcp")
		pause(time.Second)
		b.host.hear(t, 1, "10.0.0.8:5353", announcement("TV", "tv.local.", "10.0.0.8", 1000))
		heard := time.Now()
		pause(1001 * time.Second)
		var asked []time.Duration
		for _, s := range onceEach(questions(l.by("b", heard))) {
			if slices.ContainsFunc(s.msg.Question, func(q dns.Question) bool { return q.Qtype == dns.TypeSRV }) {
				asked = append(asked, s.at.Sub(heard))
			}
		}
		if len(asked) != 4 {
			t.Fatalf("asked %v, want four times", asked)
		}
		for i, d := range asked {
			least := time.Duration(800+50*i) * time.Second
			if d < least || d > least+21*time.Second {
				t.Errorf("question %d came after %v, want %v and at most 2 %% more", i, d, least)
			}
		}
		if got := b.visible(); len(got) != 0 {
			t.Errorf("outlived its life: %v", got)
		}
	})
}

// One question keeps a service and its host fresh: the answer brings the addresses along.
func TestRefreshAsksForTheServiceOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := pair(t)
		a.Announce(tv("TV", "hw-1"))
		b.Browse("_hallway._tcp")
		pause(10 * time.Second)
		since := time.Now()
		pause(20 * time.Minute)
		asked := map[uint16]int{}
		for _, s := range onceEach(questions(l.by("b", since))) {
			for _, q := range s.msg.Question {
				asked[q.Qtype]++
			}
		}
		if asked[dns.TypeA]+asked[dns.TypeAAAA] > 0 || asked[dns.TypeSRV] < 11 || asked[dns.TypeSRV] > 13 {
			t.Errorf("questions in 20 minutes, by type: %v", asked)
		}
		if got := b.reports(); len(got) != 1 || len(b.visible()) != 1 {
			t.Errorf("reports: %+v", got)
		}
	})
}

// RFC 6762 section 7.2, as the asker: what is known does not fit one packet.
func TestManyKnownAnswersTakeSeveralPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _, b := pair(t)
		b.Browse("_hallway._tcp")
		pause(500 * time.Millisecond)
		for i := range 120 {
			b.host.hear(t, 1, fmt.Sprintf("10.0.0.%d:5353", 10+i), announcement(fmt.Sprint("A device with a name ", i), fmt.Sprintf("h%d.local.", i), "10.0.0.8", 4500))
		}
		since := time.Now()
		pause(time.Second)
		got := onceEach(questions(l.by("b", since)))
		known := 0
		for i, s := range got {
			known += len(s.msg.Answer)
			if last := i == len(got)-1; s.msg.Truncated == last || len(s.msg.Question) > 0 != (i == 0) || s.msg.Len() > maxPacket {
				t.Errorf("packet %d of %d: %d questions, %d bytes, TC %v", i, len(got), len(s.msg.Question), s.msg.Len(), s.msg.Truncated)
			}
		}
		if len(got) < 3 || known != 120 {
			t.Errorf("%d known answers in %d packets", known, len(got))
		}
	})
}

func TestOneFamilyOnLinkSpeaksThatFamily(t *testing.T) {
	for _, addr := range []string{"10.0.0.1/24", "fe80::1/64"} {
		synctest.Test(t, func(t *testing.T) {
			l := &lan{}
			a, b := newHost("a"), newHost("b")
			a.plug(l, 1, addr)
			b.plug(l, 1, "10.0.0.2/24", "fe80::2/64")
			one, two := start(t, a), start(t, b)
			two.Browse("_hallway._tcp")
			one.Announce(tv("TV", "hw-1"))
			pause(3 * time.Second)
			want := netip.MustParsePrefix(addr).Addr()
			if got := two.reports(); len(got) != 1 || len(got[0].Addrs) != 1 || got[0].Addrs[0].Addr().WithZone("") != want {
				t.Errorf("%s: %+v", addr, got)
			}
			// The family that it has not is denied at once (section 6.1).
			q, other := new(dns.Msg), dns.TypeAAAA
			if want.Is6() {
				other = dns.TypeA
			}
			q.Question = []dns.Question{question("hw-1.local.", other)}
			since := time.Now()
			a.hear(t, 1, netip.AddrPortFrom(want.Next(), port).String(), q)
			synctest.Wait()
			if got := responses(l.by("a", since)); len(got) != 1 || !has(got[0].msg.Answer, "NSEC") {
				t.Errorf("%s: %v", addr, got)
			}
		})
	}
}

// Who fills the cache with inventions does not keep others out.
func TestCacheMakesRoomForOthers(t *testing.T) {
	c, now := newCache(), time.Now()
	service := func(name string, src byte) bool {
		rr := &dns.PTR{Hdr: header(hallwayType, dns.TypePTR, dns.ClassINET, 4500), Ptr: name + "." + hallwayType}
		return c.put(entry{rr: rr, iface: 1, src: netip.AddrFrom4([4]byte{10, 0, 0, src})}, now)
	}
	for i := range 2 * maxInstances {
		service(fmt.Sprint("x", i), 66)
	}
	if !service("tv", 2) {
		t.Error("one source filled a type for all")
	}
	for i := range 3 * maxEntries {
		rr := &dns.A{Hdr: header(fmt.Sprintf("h%d.local.", i), dns.TypeA, dns.ClassINET, 120), A: net.IPv4(10, 0, 0, 1)}
		c.put(entry{rr: rr, iface: 1, src: netip.AddrFrom4([4]byte{10, 0, 1, byte(i % 7)})}, now)
	}
	if c.size != maxEntries {
		t.Fatalf("size %d", c.size)
	}
	rr := &dns.A{Hdr: header("tv.local.", dns.TypeA, dns.ClassINET, 120), A: net.IPv4(10, 0, 0, 2)}
	if !c.put(entry{rr: rr, iface: 1, src: netip.MustParseAddr("10.0.0.2")}, now) || c.size != maxEntries {
		t.Errorf("seven sources filled the cache for all; size %d", c.size)
	}
	sum := 0
	for _, n := range c.bySource {
		sum += n
	}
	if sum != c.size {
		t.Errorf("%d entries are counted for their sources, %d are there", sum, c.size)
	}
}
