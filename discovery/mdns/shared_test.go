package mdns

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

const appName = "hallway-1a2b3c4d.local"

func resolved(t *testing.T, a *agent, name string) []netip.Addr {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	addrs, err := a.ResolveHost(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	return addrs
}

func TestSharedHostLeadsToAllHolders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lan{}
		hosts := make([]*agent, 0, 3)
		for _, n := range []string{"a", "b", "c"} {
			h := newHost(n)
			h.plug(l, 1, "10.0.0."+string(rune('1'+len(hosts)))+"/24")
			hosts = append(hosts, start(t, h))
		}
		a, b, c := hosts[0], hosts[1], hosts[2]
		began := time.Now()
		one := a.ShareHost(appName)
		b.ShareHost(appName)
		pause(3 * time.Second)
		log := l.by("a", time.Time{})
		if len(questions(log)) != 0 || len(responses(log)) != 2 || log[0].at.Sub(began) > probeEvery {
			t.Fatalf("probed, or not announced twice and soon: %v", log)
		}
		for _, rr := range log[0].msg.Answer {
			if h := rr.Header(); h.Class != dns.ClassINET || h.Ttl != ttlHost {
				t.Errorf("not a shared record: %v", rr)
			}
		}
		// The first answer wakes a waiter; what came by then is what it gets. Afterwards all.
		c.Browse("_hallway._tcp")
		if got := resolved(t, c, appName); len(got) == 0 {
			t.Error("nothing found")
		}
		asked := time.Now()
		q := new(dns.Msg)
		q.Question = []dns.Question{question(appName+".", dns.TypeA), question(appName+".", dns.TypeAAAA)}
		pause(2 * time.Second)
		a.host.hear(t, 1, "10.0.0.9:5353", q)
		b.host.hear(t, 1, "10.0.0.9:5353", q)
		pause(15 * time.Millisecond)
		for _, n := range []string{"a", "b"} {
			if len(responses(l.by(n, asked.Add(time.Second)))) != 0 {
				t.Errorf("%s answered for a shared record without delay", n)
			}
		}
		pause(200 * time.Millisecond)
		for _, n := range []string{"a", "b"} {
			got := responses(l.by(n, asked.Add(time.Second)))
			if len(got) != 1 || has(got[0].msg.Answer, "NSEC") {
				t.Errorf("%s: %v", n, got)
			}
		}
		// A new address replaces the old one by a goodbye: there is no bit that would.
		moved := time.Now()
		a.host.readdress(1, "10.0.0.77/24")
		pause(2 * time.Second)
		if got := l.by("a", moved)[0].msg.Answer; len(got) != 1 || !has(got, "10.0.0.1") || got[0].Header().Ttl != 0 {
			t.Errorf("the old address is not taken back: %v", got)
		}
		// Who leaves takes only its own address along.
		left := time.Now()
		one.Close()
		pause(2 * time.Second)
		gone := l.by("a", left)
		if len(gone) != 1 || len(gone[0].msg.Answer) != 1 || !has(gone[0].msg.Answer, "10.0.0.77") {
			t.Fatalf("said at the end: %v", gone)
		}
		if got := resolved(t, c, appName); !slices.Equal(got, []netip.Addr{netip.MustParseAddr("10.0.0.2")}) {
			t.Errorf("after one left: %v", got)
		}
	})
}

// Somebody else's claim on the name is no conflict, and a second agent on the same
// machine, which has the same address, does not take it along.
func TestSharedHostIsNeverContested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, _ := pair(t)
		r := a.ShareHost(appName)
		pause(3 * time.Second)
		m := response()
		m.Answer = []dns.RR{&dns.A{Hdr: header(appName+".", dns.TypeA, dns.ClassINET|flush, 120), A: []byte{10, 0, 0, 66}}}
		a.host.hear(t, 1, "10.0.0.66:5353", m)
		probe := new(dns.Msg)
		probe.Question = []dns.Question{question(appName+".", dns.TypeANY)}
		probe.Ns = m.Answer
		a.host.hear(t, 1, "10.0.0.66:5353", probe)
		since := time.Now()
		bye := response()
		bye.Answer = []dns.RR{&dns.A{Hdr: header(appName+".", dns.TypeA, dns.ClassINET, 0), A: []byte{10, 0, 0, 1}}}
		a.host.hear(t, 1, "10.0.0.1:5353", bye) // another agent on this machine ends
		pause(3 * time.Second)
		if n := len(questions(l.by("a", since))); n != 0 || r.svc.Host != appName {
			t.Errorf("%d probes, host %s", n, r.svc.Host)
		}
		got := onceEach(responses(l.by("a", since)))
		if !slices.ContainsFunc(got, func(s said) bool { return has(s.msg.Answer, "10.0.0.1") }) {
			t.Errorf("the probe or the goodbye was not answered: %v", got)
		}
	})
}
