package multicast

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/hallway-home/hallway/discovery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func link(addrs ...string) Link {
	l := Link{Index: 1, Name: "eth1"}
	for _, a := range addrs {
		l.Addrs = append(l.Addrs, netip.MustParsePrefix(a))
	}
	return l
}

func TestLink(t *testing.T) {
	l := link("10.0.0.1/24", "192.168.5.1/16", "fd00::1/64", "fe80::1/64")
	for a, want := range map[string]bool{
		"10.0.0.200": true, "10.0.1.1": false, "192.168.77.1": true, "169.254.3.3": true, "fe80::77%eth1": true, "fd00::9": true,
		"fd01::9": false, "8.8.8.8": false, "::ffff:10.0.0.7": true, "127.0.0.1": false, "2001:db8::1": false,
	} {
		if got := l.OnLink(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s on link: %v", a, got)
		}
	}
	for a, want := range map[string]string{"192.168.9.9": "192.168.5.1", "fd00::9": "fd00::1", "fe80::9": "fe80::1", "169.254.1.1": "10.0.0.1", "::ffff:10.0.0.7": "10.0.0.1"} {
		if got, ok := l.Toward(netip.MustParseAddr(a)); !ok || got.String() != want {
			t.Errorf("toward %s: %s", a, got)
		}
	}
	if _, ok := link("10.0.0.1/24").Toward(netip.MustParseAddr("fe80::1")); ok {
		t.Error("an IPv4 link speaks IPv6")
	}
	if a, _ := l.Source(true); a.String() != "fe80::1" || !l.Owns(netip.MustParseAddr("fd00::1")) || l.Owns(netip.MustParseAddr("fd00::2")) {
		t.Error(a)
	}
	if z := l.Zoned(netip.MustParseAddr("fe80::9")); z.Zone() != "eth1" {
		t.Error(z)
	}
}

func TestAllowance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewAllowance()
		a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
		heard := 0
		for range 1000 {
			if w.Hear(a) {
				heard++
			}
		}
		if heard != burst || !w.Hear(b) {
			t.Errorf("%d of a flood were heard", heard)
		}
		time.Sleep(time.Second)
		heard = 0
		for range 1000 {
			if w.Hear(a) {
				heard++
			}
		}
		if heard != perSecond {
			t.Errorf("a second later %d were heard", heard)
		}
		w.Asked(a, 100)
		if w.Spend(b, 1) || w.Spend(a, 301) || !w.Spend(a, 300) || w.Spend(a, 1) {
			t.Error("the answers are not three times the query")
		}
		for range 1000 {
			w.Asked(a, 1000)
		}
		if w.Spend(a, maxCredit+1) {
			t.Error("credit grows for ever")
		}
		for i := range 10000 {
			w.Hear(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}))
		}
		if len(w.sources) > maxSources {
			t.Errorf("%d sources are remembered", len(w.sources))
		}
		time.Sleep(2 * sourceIdle)
		if w.Prune(); len(w.sources) != 0 {
			t.Errorf("%d idle sources stay", len(w.sources))
		}
	})
}

func TestTableIsBounded(t *testing.T) {
	reports := 0
	x := NewTable(&Agenda{})
	x.Report = func(discovery.Sighting) { reports++ }
	for i := range 10000 {
		host := netip.AddrFrom4([4]byte{10, 0, byte(i / 50 >> 8), byte(i / 50)})
		x.Put(discovery.Sighting{ID: fmt.Sprint(i)}, Way{1, host}, time.Minute)
	}
	if len(x.things) != maxThings || reports != maxThings {
		t.Errorf("%d things, %d reports", len(x.things), reports)
	}
	y := NewTable(&Agenda{})
	y.Report = x.Report
	for i := range 100 {
		y.Put(discovery.Sighting{ID: fmt.Sprint(i)}, Way{1, netip.MustParseAddr("10.0.0.1")}, time.Minute)
		y.Put(discovery.Sighting{ID: "0"}, Way{i, netip.MustParseAddr("10.0.0.1")}, time.Minute)
	}
	if len(y.things) != maxPerHost || len(y.things["0"].ways) != maxWays {
		t.Errorf("%d things of one host, %d ways", len(y.things), len(y.things["0"].ways))
	}
}

// What only repeats itself is reported once a minute, with a new time and nothing else.
func TestHeardAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []discovery.Sighting
		x := NewTable(&Agenda{})
		x.Report = func(s discovery.Sighting) { got = append(got, s) }
		for range 125 {
			x.Put(discovery.Sighting{ID: "a", Instance: "A"}, Way{1, netip.MustParseAddr("10.0.0.1")}, time.Hour)
			time.Sleep(time.Second)
		}
		if len(got) != 3 || !got[2].Seen.After(got[1].Seen) {
			t.Errorf("%+v", got)
		}
	})
}

// Real sockets, on loopback: the group, an answer to who asked, and an end without leaks.
func TestConnOnLoopback(t *testing.T) {
	open := func() (*Conn, <-chan Packet) {
		c := New(Config{
			Group4: netip.MustParseAddrPort("239.255.255.250:19000"), Group6: netip.MustParseAddrPort("[ff02::c]:19000"), Hops: 1,
			Interfaces: []string{"lo"}, Logger: slog.New(slog.DiscardHandler),
		})
		in, err := c.Open()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c, in
	}
	a, ina := open()
	b, inb := open()
	await := func(in <-chan Packet, text string) Packet {
		t.Helper()
		for limit := time.After(5 * time.Second); ; {
			select {
			case p := <-in:
				if string(p.Data) == text {
					return p
				}
			case <-limit:
				t.Fatalf("%q was not heard", text)
			}
		}
	}
	var lo Link
	for _, l := range a.Links() {
		lo = l
	}
	if b.Links(); !lo.Loopback || lo.Name != "lo" {
		t.Fatalf("%+v", lo)
	}
	for _, v6 := range []bool{false, true} {
		if _, ok := lo.Source(v6); !ok {
			t.Logf("no IPv6 on loopback here: %v", v6)
			continue
		}
		q := fmt.Sprintf("question %v", v6)
		if err := a.Multicast(lo, v6, []byte(q)); err != nil {
			if v6 && strings.Contains(err.Error(), "unreachable") {
				t.Logf("no IPv6 multicast on loopback here: %v", err)
				continue
			}
			t.Fatal(err)
		}
		p := await(inb, q)
		if !p.Group || p.Iface != lo.Index || !lo.Owns(p.From.Addr()) {
			t.Errorf("%+v", p)
		}
		if err := b.Unicast(lo, p.From, []byte("answer")); err != nil {
			t.Fatal(err)
		}
		if p := await(ina, "answer"); p.Group || p.From.Port() != 19000 {
			t.Errorf("%+v", p)
		}
	}
}

func TestAgenda(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a Agenda
		var got []int
		for _, i := range []int{3, 1, 2} {
			a.After(time.Duration(i)*time.Second, func() { got = append(got, i) })
		}
		for a.Len() > 0 {
			time.Sleep(a.Wait())
			a.Run(time.Now())
		}
		if fmt.Sprint(got) != "[1 2 3]" || a.Wait() != time.Hour {
			t.Error(got)
		}
		if j := Jitter(time.Second, time.Second); j != time.Second {
			t.Error(j)
		}
	})
}
