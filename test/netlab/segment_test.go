package netlab

import (
	"context"
	"strings"
	"testing"
	"time"
)

// answers reports whether a host is reached: an answer, if only a reset, means it is.
func answers(t *testing.T, from *Host, target string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	out, _ := from.Command(ctx, "bash", "-c", "exec 3<>/dev/tcp/"+target+"/80").CombinedOutput()
	return strings.Contains(string(out), "refused")
}

// reaches tries again for a while: a neighbour that was asked for during a cut is unreachable for
// some time after it (RFC 4861 section 7.2.2).
func reaches(t *testing.T, from *Host, target string) bool {
	t.Helper()
	for range 5 {
		if answers(t, from, target) {
			return true
		}
	}
	return false
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSegmentsMeetOnlyThroughTheRouter(t *testing.T) {
	l := For(t)
	other, err := l.Segment()
	must(t, err)
	a, b := l.MustHost(t, "a"), l.MustHostOn(t, other, "b", Both)
	if answers(t, a, b.IPv4) || answers(t, a, b.IPv6) {
		t.Error("a host of another segment answers without a router")
	}
	must(t, l.Route(l.First(), other))
	c := l.MustHostOn(t, other, "c", Both)
	for _, x := range []string{b.IPv4, b.IPv6, c.IPv4, c.IPv6} {
		if !reaches(t, a, x) {
			t.Errorf("%s does not answer through the router", x)
		}
	}
	must(t, c.Move(l.First()))
	if c.IPv4 != "10.77.0.4" || !reaches(t, a, c.IPv4) || !reaches(t, b, c.IPv6) {
		t.Errorf("a host that moved to %s does not answer there", c.IPv4)
	}
}

func TestCutHealAndNewAddresses(t *testing.T) {
	l := For(t)
	a, b, c := l.MustHost(t, "a"), l.MustHost(t, "b"), l.MustHost(t, "c")
	must(t, l.Cut(b, c))
	if answers(t, a, b.IPv4) || answers(t, b, a.IPv6) || !reaches(t, b, c.IPv4) || !reaches(t, c, b.IPv6) {
		t.Error("a cut must part its sides and leave each whole")
	}
	must(t, l.Heal(b, c))
	if !reaches(t, a, b.IPv4) || !reaches(t, c, a.IPv6) {
		t.Error("a healed cut must leave nothing behind")
	}
	old := b.IPv4
	must(t, b.GetIPv4(99))
	if answers(t, a, old) || !reaches(t, a, b.IPv4) || b.IPv4 == old {
		t.Errorf("after a new address %s still answers, or %s does not", old, b.IPv4)
	}
	must(t, b.LoseIPv4())
	if answers(t, a, "10.77.0.99") || !reaches(t, a, b.IPv6) {
		t.Error("without IPv4 only IPv6 must answer")
	}
}

func TestFamiliesAndMulticast(t *testing.T) {
	l := For(t)
	a, four, six, link := l.MustHost(t, "a"), l.MustHostOn(t, l.First(), "four", IPv4Only), l.MustHostOn(t, l.First(), "six", IPv6Only), l.MustHostOn(t, l.First(), "link", LinkLocalOnly)
	addrs := func(h *Host) string {
		out, err := h.Command(t.Context(), "ip", "-o", "addr", "show", "dev", "eth0").Output()
		must(t, err)
		return string(out)
	}
	for h, want := range map[*Host][3]bool{a: {true, true, true}, four: {true, false, false}, six: {false, true, true}, link: {false, false, true}} {
		s := addrs(h)
		if got := [3]bool{strings.Contains(s, "inet 10.77."), strings.Contains(s, "inet6 fd77:"), strings.Contains(s, "inet6 fe80:")}; got != want {
			t.Errorf("%s has %s", h.Name, s)
		}
	}
	must(t, link.Attach(l.First()))
	must(t, a.Attach(l.First()))
	if !reaches(t, four, "10.77.0.51") {
		t.Error("a second interface does not answer")
	}
	must(t, l.First().BlockMulticast())
	b := l.MustHost(t, "b") // its port is open: it may ask, nobody hears
	if !reaches(t, four, a.IPv4) {
		t.Error("IPv4 needs no multicast")
	}
	if answers(t, b, six.IPv6) {
		t.Error("multicast passes, and so IPv6 found its neighbour")
	}
}
