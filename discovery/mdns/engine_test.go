package mdns

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

func TestProbesThenAnnounces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, _ := pair(t)
		a.Announce(tv("TV", "hw-1"))
		pause(5 * time.Second)
		log := onceEach(l.by("a", time.Time{}))
		probes, news := questions(log), responses(log)
		if len(probes) != 3 || len(news) != 2 {
			t.Fatalf("%d probes and %d announcements, want 3 and 2", len(probes), len(news))
		}
		for i := 1; i < 3; i++ {
			if d := probes[i].at.Sub(probes[i-1].at); d != 250*time.Millisecond {
				t.Errorf("probe %d came after %v", i, d)
			}
		}
		if d := news[1].at.Sub(news[0].at); d != time.Second {
			t.Errorf("second announcement after %v", d)
		}
		if !has(probes[0].msg.Ns, "SRV") || !has(probes[0].msg.Ns, "10.0.0.1") {
			t.Errorf("a probe states no SRV or address: %v", probes[0].msg)
		}
		for _, rr := range news[0].msg.Answer {
			h := rr.Header()
			wantTTL, wantFlush := uint32(120), true
			if h.Rrtype == dns.TypePTR || h.Rrtype == dns.TypeTXT {
				wantTTL = 4500
			}
			if h.Rrtype == dns.TypePTR {
				wantFlush = false
			}
			if h.Ttl != wantTTL || (h.Class&flush != 0) != wantFlush {
				t.Errorf("%v: TTL or cache-flush bit is wrong", rr)
			}
		}
		for _, want := range []string{"_tv._sub._hallway._tcp.local.", "_services._dns-sd._udp.local.", "fe80::1", "class=tv"} {
			if !has(news[0].msg.Answer, want) {
				t.Errorf("announced without %s: %v", want, news[0].msg)
			}
		}
	})
}

func TestAddUpdateRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := pair(t)
		b.Browse("_hallway._tcp")
		pause(time.Second)
		s := tv("Küche (1.5) \"TV\"", "hw-1")
		r := a.Announce(s)
		pause(1200 * time.Millisecond)
		got := b.reports()
		if len(got) != 1 || got[0].Instance != s.Instance || !slices.Equal(got[0].Text, s.Text) || got[0].Host != "hw-1.local" {
			t.Fatalf("after announcing: %+v", got)
		}
		want := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:5061"), netip.MustParseAddrPort("[fe80::1%eth1]:5061")}
		if !slices.Equal(got[0].Addrs, want) {
			t.Fatalf("addresses %v, want %v", got[0].Addrs, want)
		}
		s.Text = []string{"txtvers=1", "class=tv", `note=a\b"c"ü`}
		r.Update(s)
		pause(1500 * time.Millisecond)
		if got = b.reports(); len(got) != 2 || !slices.Equal(got[1].Text, s.Text) {
			t.Fatalf("after the update: %+v", got[1:])
		}
		pause(10 * time.Second)
		stopped := time.Now()
		a.stop()
		pause(1500 * time.Millisecond)
		if got = b.reports(); len(got) != 3 || !got[2].Gone || got[2].Seen.Sub(stopped) > 1100*time.Millisecond {
			t.Fatalf("after the stop: %+v", got[2:])
		}
	})
}

func TestLateBrowserIsAnsweredQuickly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := pair(t)
		a.Announce(tv("TV", "hw-1"))
		pause(10 * time.Second)
		began := time.Now()
		b.Browse("_tv._sub._hallway._tcp")
		pause(300 * time.Millisecond)
		asked := questions(l.by("b", began))[0].at
		got := b.reports()
		if len(got) != 1 || got[0].Kind != "_hallway._tcp" {
			t.Fatalf("reports %+v", got)
		}
		if d := got[0].Seen.Sub(asked); d < delayMin || d > delayMax+showEvery {
			t.Errorf("a shared record was answered after %v, want 20 to 120 ms", d)
		}
		if n := len(onceEach(responses(l.by("a", asked)))); n != 1 {
			t.Errorf("%d answers to one question (asked in both families)", n)
		}
	})
}

func TestUniqueRecordsAreAnsweredAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, _ := pair(t)
		a.Announce(tv("TV", "hw-1"))
		pause(10 * time.Second)
		now := time.Now()
		q := new(dns.Msg)
		q.Question = []dns.Question{question("tv._hallway._tcp.local.", dns.TypeSRV)}
		a.host.hear(t, 1, "10.0.0.2:5353", q)
		synctest.Wait()
		got := responses(l.by("a", now))
		if len(got) == 0 || !got[0].at.Equal(now) || !has(got[0].msg.Answer, "SRV") || !has(got[0].msg.Extra, "10.0.0.1") {
			t.Fatalf("answers: %v", got)
		}
		// What it does not have, it says (RFC 6762 section 6.1).
		pause(2 * time.Second)
		now = time.Now()
		q.Question = []dns.Question{question("hw-1.local.", dns.TypeHINFO)}
		a.host.hear(t, 1, "10.0.0.2:5353", q)
		synctest.Wait()
		if got = responses(l.by("a", now)); len(got) == 0 || !has(got[0].msg.Answer, "NSEC") {
			t.Fatalf("no negative answer: %v", got)
		}
	})
}

func TestQuestionsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _, b := pair(t)
		began := time.Now()
		b.Browse("_rtsp._tcp")
		pause(20 * time.Second)
		log := onceEach(questions(l.by("b", time.Time{})))
		if d := log[0].at.Sub(began); len(log) != 5 || d < delayMin || d > delayMax {
			t.Fatalf("%d questions in 20 s, want 5 (0, 1, 3, 7, 15 s); the first after %v, want 20 to 120 ms", len(log), d)
		}
		for i, least := range []time.Duration{1, 2, 4, 8} {
			if d := log[i+1].at.Sub(log[i].at); d < least*time.Second || d > least*1100*time.Millisecond {
				t.Errorf("pause %d was %v, want %d s and up to 10 %%", i, d, least)
			}
		}
	})
}

func TestKnownAnswersSuppress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := pair(t)
		a.Announce(tv("TV", "hw-1"))
		b.Browse("_hallway._tcp")
		pause(5 * time.Second)
		quiet := time.Now()
		pause(20 * time.Second)
		asked := questions(l.by("b", quiet))
		if len(asked) == 0 || !has(asked[0].msg.Answer, "TV._hallway._tcp.local.") {
			t.Fatalf("the known answer is not in the question: %v", asked)
		}
		if got := responses(l.by("a", quiet)); len(got) != 0 {
			t.Fatalf("answered what is known: %v", got[0].msg)
		}
		// A question whose known answers follow in a second packet (section 7.2).
		q, rest := new(dns.Msg), new(dns.Msg)
		q.Question = []dns.Question{question("_hallway._tcp.local.", dns.TypePTR)}
		q.Truncated = true
		rest.Answer = asked[0].msg.Answer
		a.host.hear(t, 1, "10.0.0.3:5353", q)
		a.host.hear(t, 1, "10.0.0.3:5353", rest)
		a.host.hear(t, 1, "10.0.0.4:5353", &dns.Msg{MsgHdr: dns.MsgHdr{Truncated: true}, Question: q.Question})
		now := time.Now()
		pause(300 * time.Millisecond)
		if got := responses(l.by("a", now)); len(got) != 0 {
			t.Fatal("did not wait for the rest of the known answers")
		}
		pause(400 * time.Millisecond)
		if got := onceEach(responses(l.by("a", now))); len(got) != 1 {
			t.Fatalf("%d answers, want one: only the asker without known answers needs it", len(got))
		}
	})
}

func TestRefreshThenExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := pair(t)
		b.Browse("_hallway._tcp")
		a.Announce(tv("TV", "hw-1"))
		pause(5 * time.Minute)
		if got := b.visible(); len(got) != 1 {
			t.Fatalf("a living service was forgotten: %+v", b.reports())
		}
		if got := b.reports(); len(got) != 1 {
			t.Fatalf("%d reports for an unchanged service: %+v", len(got), got)
		}
		a.host.unplug(1) // the plug is pulled: no goodbye
		pulled := time.Now()
		pause(130 * time.Second)
		if got := b.visible(); len(got) != 0 {
			t.Fatalf("still visible: %v", got)
		}
		asked := 0
		for _, s := range onceEach(questions(l.by("b", pulled))) {
			if slices.ContainsFunc(s.msg.Question, func(q dns.Question) bool { return q.Qtype == dns.TypeSRV }) {
				asked++
			}
		}
		if asked < 4 {
			t.Errorf("%d refresh questions before forgetting, want at least 4 (80, 85, 90, 95 %%)", asked)
		}
	})
}

func TestTwoLinksOneThing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wired, wireless := &lan{}, &lan{}
		a, b := newHost("a"), newHost("b")
		a.plug(wired, 1, "10.0.0.1/24")
		a.plug(wireless, 2, "10.1.0.1/24")
		b.plug(wired, 1, "10.0.0.2/24")
		one, two := start(t, a), start(t, b)
		two.Browse("_hallway._tcp")
		one.Announce(tv("TV", "hw-1"))
		pause(3 * time.Second)
		if got := two.reports(); len(got) != 1 || len(got[0].Addrs) != 1 {
			t.Fatalf("on one link: %+v", got)
		}
		b.plug(wireless, 2, "10.1.0.2/24") // a late interface
		pause(500 * time.Millisecond)
		got := two.reports()
		if last := got[len(got)-1]; len(two.visible()) != 1 || len(last.Addrs) != 2 {
			t.Fatalf("on two links: %+v", got)
		}
		b.unplug(1)
		pause(500 * time.Millisecond)
		got = two.reports()
		if last := got[len(got)-1]; last.Gone || len(last.Addrs) != 1 || last.Addrs[0].Addr() != netip.MustParseAddr("10.1.0.1") {
			t.Fatalf("after losing one link: %+v", got)
		}
		b.unplug(2)
		pause(500 * time.Millisecond)
		if got := two.visible(); len(got) != 0 {
			t.Fatalf("visible without any link: %v", got)
		}
		b.plug(wired, 1, "10.0.0.2/24")
		pause(500 * time.Millisecond)
		if got := two.visible(); len(got) != 1 {
			t.Fatalf("not found again: %v", got)
		}
	})
}

func TestLateInterfaceIsProbedAndAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lan{}
		a := newHost("a")
		one := start(t, a)
		one.Announce(tv("TV", "hw-1"))
		pause(10 * time.Second)
		came := time.Now()
		a.plug(l, 1, "10.0.0.1/24")
		pause(3 * time.Second)
		log := l.by("a", came)
		if p, r := len(questions(log)), len(responses(log)); p != 3 || r != 2 {
			t.Fatalf("%d probes, %d announcements on a late interface", p, r)
		}
		// Another address: announced at once, the service is not taken away.
		moved := time.Now()
		a.readdress(1, "10.0.0.9/24")
		pause(500 * time.Millisecond)
		log = l.by("a", moved)
		if len(questions(log)) != 0 || len(log) != 2 || !has(log[1].msg.Answer, "10.0.0.9") {
			t.Fatalf("after a new address: %v", log)
		}
		if old := log[0].msg.Answer; len(old) != 1 || !has(old, "10.0.0.1") || old[0].Header().Ttl != 0 {
			t.Errorf("the old address is not taken back: %v", old)
		}
	})
}

// readdress gives an interface another address in one step, as DHCP does.
func (h *memHost) readdress(index int, addr string) {
	h.mu.Lock()
	h.nics[index].link.Addrs = []netip.Prefix{netip.MustParsePrefix(addr)}
	h.mu.Unlock()
	h.signal()
}

func TestResolveHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := pair(t)
		a.Announce(tv("TV", "hw-1"))
		a.Announce(Service{Instance: "Web", Type: "_http._tcp", Host: "other.local", Port: 80})
		pause(5 * time.Second)
		for _, name := range []string{"hw-1.local", "OTHER.local."} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			began := time.Now()
			got, err := b.ResolveHost(ctx, name)
			cancel()
			want := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fe80::1%eth1")}
			if err != nil || !slices.Equal(got, want) || time.Since(began) > 0 {
				t.Errorf("%s: %v, %v after %v", name, got, err, time.Since(began))
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := b.ResolveHost(ctx, "nobody.local"); !errors.Is(err, ErrNoHost) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nobody.local: %v", err)
		}
		if _, err := b.ResolveHost(ctx, "example.org"); err == nil {
			t.Error("a name outside .local was looked up")
		}
		if got, err := a.ResolveHost(t.Context(), "hw-1.local"); err != nil || len(got) != 2 {
			t.Errorf("own host: %v, %v", got, err)
		}
		synctest.Wait()
		b.loop.Do(func() {
			if len(b.waiters) != 0 {
				t.Errorf("%d waiters left", len(b.waiters))
			}
		})
		pause(time.Millisecond)
	})
}
