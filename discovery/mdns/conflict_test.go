package mdns

import (
	"cmp"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

func TestSecondComerIsRenamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := pair(t)
		first := a.Announce(tv("TV", "hw-1"))
		pause(3 * time.Second)
		second := b.Announce(tv("TV", "hw-2"))
		c := newHost("c")
		c.plug(l, 1, "10.0.0.3/24")
		watcher := start(t, c)
		watcher.Browse("_hallway._tcp")
		pause(10 * time.Second)
		if first.Instance() != "TV" || second.Instance() != "TV (2)" {
			t.Fatalf("names %q and %q", first.Instance(), second.Instance())
		}
		if got := watcher.visible(); !slices.Equal(got, []string{"TV", "TV (2)"}) {
			t.Fatalf("visible %v", got)
		}
		for _, s := range watcher.reports() {
			if s.Gone {
				t.Errorf("%s was evicted for a moment", s.Instance)
			}
		}
	})
}

func TestSimultaneousProbesEndDistinct(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			_, a, b := pair(t)
			x, y := a.Announce(tv("TV", "hw-1")), b.Announce(tv("TV", "hw-2"))
			pause(15 * time.Second)
			names := []string{x.Instance(), y.Instance()}
			slices.Sort(names)
			if !slices.Equal(names, []string{"TV", "TV (2)"}) {
				t.Fatalf("names %v", names)
			}
		})
	}
}

func TestTakenHostIsRenamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := pair(t)
		a.Announce(tv("One", "tv"))
		pause(3 * time.Second)
		b.Announce(tv("Two", "tv"))
		a.Browse("_hallway._tcp")
		pause(10 * time.Second)
		i := slices.IndexFunc(a.reports(), func(s sighting) bool { return s.Instance == "Two" })
		if i < 0 || a.reports()[i].Host != "tv-2.local" {
			t.Fatalf("%+v", a.reports())
		}
	})
}

func TestConflictAfterwardsGoesBackToProbing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, _ := pair(t)
		r := a.Announce(tv("TV", "hw-1"))
		pause(5 * time.Second)
		now := time.Now()
		m := response()
		m.Answer = []dns.RR{&dns.SRV{Hdr: header("TV._hallway._tcp.local.", dns.TypeSRV, dns.ClassINET|flush, 120), Port: 1, Target: "evil.local."}}
		a.host.hear(t, 1, "10.0.0.66:5353", m)
		pause(3 * time.Second)
		if n := len(onceEach(questions(l.by("a", now)))); n != 3 {
			t.Errorf("%d probes after a conflict, want 3", n)
		}
		// Nobody answered the probe, so the claim was empty: the name stays.
		if r.Instance() != "TV" {
			t.Errorf("one forged record evicted the first holder: now %q", r.Instance())
		}
	})
}

func TestManyConflictsSlowDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, _ := pair(t)
		r := a.Announce(tv("TV", "hw-1"))
		for range 200 { // somebody claims whatever name is tried
			pause(50 * time.Millisecond)
			m := response()
			m.Answer = []dns.RR{&dns.SRV{Hdr: header(escape(r.Instance())+"._hallway._tcp.local.", dns.TypeSRV, dns.ClassINET|flush, 120), Port: 1, Target: "evil.local."}}
			a.host.hear(t, 1, "10.0.0.66:5353", m)
			synctest.Wait()
		}
		if n := len(onceEach(l.by("a", time.Time{}))); n > 60 {
			t.Errorf("%d packets in 10 s of conflicts", n)
		}
	})
}

func TestCompareClaims(t *testing.T) {
	a := func(ip ...byte) dns.RR { return &dns.A{Hdr: header("x.local.", dns.TypeA, dns.ClassINET, 120), A: ip} }
	srv := &dns.SRV{Hdr: header("x.local.", dns.TypeSRV, dns.ClassINET|flush, 120), Target: "y.local."}
	// RFC 6762 section 8.2.1: 169.254.200.50 is later than 169.254.99.200.
	for _, c := range []struct {
		name         string
		ours, theirs []dns.RR
		want         int
	}{
		{"the RFC's example", []dns.RR{a(169, 254, 99, 200)}, []dns.RR{a(169, 254, 200, 50)}, -1},
		{"equal", []dns.RR{a(1, 2, 3, 4)}, []dns.RR{a(1, 2, 3, 4)}, 0},
		{"order does not matter", []dns.RR{a(1, 2, 3, 4), a(1, 1, 1, 1)}, []dns.RR{a(1, 1, 1, 1), a(1, 2, 3, 4)}, 0},
		{"more records win", []dns.RR{a(1, 2, 3, 4), srv}, []dns.RR{a(1, 2, 3, 4)}, 1},
		{"higher type wins, whatever the flush bit", []dns.RR{a(9, 9, 9, 9)}, []dns.RR{srv}, -1},
	} {
		if got := cmp.Compare(compareClaims(c.ours, c.theirs), 0); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
