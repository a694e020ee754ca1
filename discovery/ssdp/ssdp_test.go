package ssdp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/discovery/multicast"
	"github.com/hallway-home/hallway/discovery/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	uuidA = "4d696e69-444c-164e-9d41-020000000001"
	uuidB = "4d696e69-444c-164e-9d41-020000000002"
	urlB  = "http://10.0.0.10:8200/rootDesc.xml"
	own   = "1a2b3c4d-0506-8000-8000-070800000000"
	host  = "10.0.0.9:40000"
	urlA  = "http://10.0.0.9:8200/rootDesc.xml"
)

// silent is a listener that nobody calls; real ones would hold virtual time.
type silent struct{ closed chan struct{} }

func (s silent) Accept() (net.Conn, error) { <-s.closed; return nil, net.ErrClosed }
func (s silent) Addr() net.Addr            { return &net.TCPAddr{IP: net.IPv4zero, Port: 49152} }
func (s silent) Close() error {
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	return nil
}

// tester is a source on a network in memory, where descriptions are what the test says.
type tester struct {
	*Source
	net     *sourcetest.Net
	boots   atomic.Uint32
	fetched atomic.Int32
	mu      sync.Mutex
	docs    map[string]string // by URL
	reports []discovery.Sighting
}

func newTester() *tester {
	x := &tester{net: sourcetest.NewNet(), docs: map[string]string{}}
	x.Source = New(Config{
		network: x.net, NextBoot: func() (uint32, error) { return x.boots.Add(1), nil },
		listen: func() (net.Listener, error) { return silent{make(chan struct{})}, nil },
		fetch: func(_ context.Context, u *url.URL, _ netip.Addr) ([]byte, error) {
			x.fetched.Add(1)
			x.mu.Lock()
			defer x.mu.Unlock()
			if d, ok := x.docs[u.String()]; ok {
				return []byte(d), nil
			}
			return nil, errors.New("no such page")
		},
	})
	return x
}

func (x *tester) serves(u, doc string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.docs[u] = doc
}

// start runs it until the test ends.
func (x *tester) start(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := x.Run(ctx, x.take); err != nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	synctest.Wait()
	return stop
}

func (x *tester) take(s discovery.Sighting) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.reports = append(x.reports, s)
}

func (x *tester) seen() map[string]discovery.Sighting {
	synctest.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	out := map[string]discovery.Sighting{}
	for _, s := range x.reports {
		if out[s.ID] = s; s.Gone {
			delete(out, s.ID)
		}
	}
	return out
}

func desc(name, kind, udn string) string {
	return fmt.Sprintf(`<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceType>%s</deviceType><friendlyName>%s</friendlyName><UDN>uuid:%s</UDN></device></root>`, kind, name, udn)
}

const renderer = "urn:schemas-upnp-org:device:MediaRenderer:1"

func alive(uuid, nt, location string, boot int) []byte {
	n := "uuid:" + uuid
	if nt != "" {
		n += "::" + nt
	}
	return fmt.Appendf(nil, "NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nCACHE-CONTROL: max-age=1800\r\nLOCATION: %s\r\nNT: %s\r\nNTS: ssdp:alive\r\nSERVER: x\r\nUSN: %s\r\nBOOTID.UPNP.ORG: %d\r\n\r\n", location, nt, n, boot)
}

func bye(uuid, nt string) []byte {
	return fmt.Appendf(nil, "NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nNT: %s\r\nNTS: ssdp:byebye\r\nUSN: uuid:%s::%s\r\n\r\n", nt, uuid, nt)
}

func query(st string, extra ...string) []byte {
	return []byte("M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 2\r\nST: " + st + "\r\n" + strings.Join(extra, "") + "\r\n")
}

func TestConformance(t *testing.T) {
	sourcetest.Run(t, func(*testing.T) sourcetest.Peer {
		x := newTester()
		return sourcetest.Peer{
			Source: x.Source, Life: maxAge,
			Say: func(v int) {
				x.serves(urlA, desc(fmt.Sprintf("TV %d", v), renderer, uuidA))
				for _, nt := range []string{"upnp:rootdevice", "", renderer} {
					x.net.Hear(host, true, alive(uuidA, nt, urlA, v))
				}
			},
			Bye: func() {
				for _, nt := range []string{renderer, "upnp:rootdevice"} {
					x.net.Hear(host, true, bye(uuidA, nt))
				}
			},
			Hear: func(b []byte) { x.net.Hear("10.0.0.8:1900", true, b) },
			Broken: [][]byte{
				alive(uuidA, "upnp:rootdevice", "http://10.0.0.66/elsewhere", 9), alive("../../x", "upnp:rootdevice", urlA, 9),
				alive(uuidA, "upnp:rootdevice", "", 9), alive(uuidA, "upnp:rootdevice", "file:///etc/passwd", 9), bye("", "upnp:rootdevice"),
				bye(uuidA, "upnp:rootdevice"), // from a host that it was never heard from
				[]byte("NOTIFY * HTTP/1.1\r\n"), []byte("HTTP/1.1 404 Not Found\r\nUSN: uuid:" + uuidA + "\r\n\r\n"), query("ssdp:all"),
			},
		}
	})
}

func announced() *Device {
	return &Device{UUID: own, Name: "Hallway-1a2b3c4d", Presentation: "https://hallway-0011aabb.local:8443/"}
}

// said lists NTS or the status, target, USN and BOOTID of what was sent.
func said(t *testing.T, sent []sourcetest.Sent) (out []string) {
	t.Helper()
	for _, s := range sent {
		m, err := parse(s.Data)
		if err != nil {
			t.Fatalf("we sent %q: %v", s.Data, err)
		}
		switch m.kind {
		case notify:
			out = append(out, fmt.Sprintf("%s %s %s %s", m.header["NTS"], m.header["NT"], m.header["USN"], m.header["BOOTID.UPNP.ORG"]))
		case response:
			out = append(out, fmt.Sprintf("200 %s %s", m.header["ST"], m.header["USN"]))
		case search:
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func TestAnnouncesItselfAndSaysGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTester()
		x.Announce(announced())
		began := time.Now()
		stop := x.start(t)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		want := []string{
			"ssdp:alive " + discovery.UPnPType + " uuid:" + own + "::" + discovery.UPnPType + " 1",
			"ssdp:alive upnp:rootdevice uuid:" + own + "::upnp:rootdevice 1",
			"ssdp:alive uuid:" + own + " uuid:" + own + " 1",
		}
		slices.Sort(want)
		sent := x.net.Sent(began)
		if got := said(t, sent); !slices.Equal(got, want) {
			t.Errorf("said %q", got)
		}
		perLink := map[string]int{}
		for _, s := range sent {
			if m, _ := parse(s.Data); m.kind == notify {
				perLink[fmt.Sprintf("%d %v %s %s", s.Iface, s.V6, m.header["LOCATION"], m.header["CACHE-CONTROL"])]++
			}
		}
		for k, n := range map[string]int{
			"1 false http://10.0.0.1:49152/d.xml max-age=1800": 9, "1 true http://[fe80::1]:49152/d.xml max-age=1800": 9,
			"2 false http://10.0.0.2:49152/d.xml max-age=1800": 9, "2 true http://[fe80::2]:49152/d.xml max-age=1800": 9,
		} {
			if perLink[k] != n {
				t.Errorf("%s: %d times, want %d; all: %v", k, perLink[k], n, perLink)
			}
		}
		quiet := time.Now()
		time.Sleep(maxAge / 2)
		synctest.Wait()
		if got := said(t, x.net.Sent(quiet)); !slices.Equal(got, want) {
			t.Errorf("within half of its life it was said again: %q", got)
		}
		left := time.Now()
		stop()
		for _, s := range said(t, x.net.Sent(left)) {
			if !strings.HasPrefix(s, "ssdp:byebye ") {
				t.Errorf("at the end it said %q", s)
			}
		}
		if n := len(said(t, x.net.Sent(left))); n != 3 {
			t.Errorf("%d goodbyes, want 3", n)
		}
	})
}

func TestSearchesAreAnsweredEachWithItsOwnSTAndUSN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTester()
		x.Announce(announced())
		x.start(t)
		time.Sleep(5 * time.Second)
		root := "200 upnp:rootdevice uuid:" + own + "::upnp:rootdevice"
		id := "200 uuid:" + own + " uuid:" + own
		kind := "200 " + discovery.UPnPType + " uuid:" + own + "::" + discovery.UPnPType
		padding := "X-LONG: " + strings.Repeat("x", 300) + "\r\n"
		for i, c := range []struct {
			q    []byte
			want []string
		}{
			{query("upnp:rootdevice"), []string{root}},
			{query("uuid:" + own), []string{id}},
			{query("uuid:" + strings.ToUpper(own)), []string{id}},
			{query(discovery.UPnPType), []string{kind}},
			{query("ssdp:all", padding), []string{root, kind, id}},
			{query("urn:schemas-upnp-org:device:MediaRenderer:1"), nil},
			{query("uuid:" + uuidA), nil},
			{[]byte(strings.Replace(string(query("upnp:rootdevice")), "MX: 2\r\n", "", 1)), nil},
			{[]byte(strings.Replace(string(query("upnp:rootdevice")), "MX: 2", "MX: 0", 1)), nil},
			{[]byte(strings.Replace(string(query("upnp:rootdevice")), "ssdp:discover", "ssdp:x", 1)), nil},
		} {
			asked := time.Now()
			from := fmt.Sprintf("10.0.0.%d:50000", 20+i)
			x.net.HearOn(1, from, true, c.q)
			time.Sleep(2100 * time.Millisecond)
			synctest.Wait()
			sent := slices.DeleteFunc(x.net.Sent(asked), func(s sourcetest.Sent) bool { return !s.To.IsValid() })
			got := said(t, sent)
			slices.Sort(c.want)
			if !slices.Equal(got, c.want) {
				t.Errorf("%q was answered with %q", c.q, got)
			}
			for _, s := range sent {
				if s.Iface != 1 || s.To.String() != from || !strings.Contains(string(s.Data), "LOCATION:http://10.0.0.1:49152/d.xml\r\n") || !strings.Contains(string(s.Data), "\r\nEXT:\r\n") {
					t.Errorf("answer to %s on %d: %s", s.To, s.Iface, s.Data)
				}
			}
		}
	})
}

// A search without MX that was sent to this node alone is answered within a second.
func TestUnicastSearchNeedsNoMX(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTester()
		x.Announce(announced())
		x.start(t)
		asked := time.Now()
		x.net.HearOn(2, "[fe80::77]:50000", false, []byte(strings.Replace(string(query("upnp:rootdevice")), "MX: 2\r\n", "", 1)))
		time.Sleep(time.Second)
		synctest.Wait()
		sent := slices.DeleteFunc(x.net.Sent(asked), func(s sourcetest.Sent) bool { return !s.To.IsValid() })
		if len(sent) != 1 || !strings.Contains(string(sent[0].Data), "LOCATION:http://[fe80::2]:49152/d.xml\r\n") {
			t.Errorf("%+v", sent)
		}
	})
}

// Whatever is asked, by whom, and how often: at most three times its bytes go back, and
// nothing to who is not on the link.
func TestAnswersAreAtMostThreeTimesTheQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTester()
		x.Announce(announced())
		x.start(t)
		asked := map[netip.AddrPort]int{}
		for i := range 2000 {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(30 + i%5)}), 50000)
			if i%7 == 0 {
				from = netip.MustParseAddrPort([]string{"8.8.8.8:1900", "10.0.1.5:1900", "[2001:db8::1]:1900"}[i%3])
			}
			q := query([]string{"ssdp:all", "upnp:rootdevice", discovery.UPnPType, "uuid:" + own}[i%4])
			x.net.HearOn(1, from.String(), true, q)
			asked[from] += len(q)
			if i%20 == 0 {
				time.Sleep(50 * time.Millisecond)
			}
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		answered, total := map[netip.AddrPort]int{}, 0
		for _, s := range x.net.Sent(time.Time{}) {
			if s.To.IsValid() {
				answered[s.To] += len(s.Data)
				total += len(s.Data)
			}
		}
		l := x.net.Links()[1]
		for to, n := range answered {
			if !l.OnLink(to.Addr()) {
				t.Errorf("%d bytes went to %s, which is not on the link", n, to)
			}
			if n > multicast.Factor*asked[to] {
				t.Errorf("%s asked with %d bytes and got %d", to, asked[to], n)
			}
		}
		if total == 0 {
			t.Error("nothing was answered at all")
		}
		t.Logf("answers: %v", answered)
	})
}

// Control points repeat a search for everything; then all three answers come.
func TestAllAnswersComeWithRepeatedSearches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTester()
		x.Announce(announced())
		x.start(t)
		asked := time.Now()
		for range 3 {
			x.net.HearOn(1, "10.0.0.50:50000", true, query("ssdp:all"))
			time.Sleep(500 * time.Millisecond)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := said(t, slices.DeleteFunc(x.net.Sent(asked), func(s sourcetest.Sent) bool { return !s.To.IsValid() })); len(got) != 3 {
			t.Errorf("%q", got)
		}
	})
}

func TestLateAndVanishingInterfaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTester()
		x.Announce(announced())
		x.start(t)
		time.Sleep(5 * time.Second)
		late := time.Now()
		x.net.Plug(3, "192.168.7.1/24")
		time.Sleep(4 * time.Second)
		synctest.Wait()
		updates, alives, searches := 0, 0, 0
		for _, s := range x.net.Sent(late) {
			switch m, _ := parse(s.Data); {
			case m.header["NTS"] == "ssdp:update":
				if s.Iface == 3 || m.header["BOOTID.UPNP.ORG"] != "1" || m.header["NEXTBOOTID.UPNP.ORG"] != "2" {
					t.Errorf("on %d: %s", s.Iface, s.Data)
				}
				updates++
			case m.header["NTS"] == "ssdp:alive" && s.Iface == 3:
				if m.header["BOOTID.UPNP.ORG"] != "2" || m.header["LOCATION"] != "http://192.168.7.1:49152/d.xml" {
					t.Errorf("%s", s.Data)
				}
				alives++
			case m.kind == search && s.Iface == 3:
				searches++
			}
		}
		if updates != 12 || alives != 9 || searches != 3 {
			t.Errorf("%d updates, %d alives and %d searches on the new interface; want 12, 9, 3", updates, alives, searches)
		}
		x.serves("http://192.168.7.9/d", desc("Late", renderer, uuidA))
		x.net.HearOn(3, "192.168.7.9:1900", true, alive(uuidA, "upnp:rootdevice", "http://192.168.7.9/d", 1))
		time.Sleep(time.Second)
		if got := x.seen(); got[uuidA].Instance != "Late" || got[uuidA].Addrs[0].String() != "192.168.7.9:80" {
			t.Errorf("%+v", got)
		}
		x.net.Plug(3)
		time.Sleep(time.Second)
		if got := x.seen(); len(got) != 0 {
			t.Errorf("what was heard on a lost interface stays: %+v", got)
		}
	})
}

func TestChangedDescriptionIsAnnouncedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTester()
		first := announced()
		first.Presentation = ""
		x.Announce(first)
		x.start(t)
		time.Sleep(5 * time.Second)
		_, before := first.describe(discovery.UPnPType)
		now := time.Now()
		x.Announce(announced())
		x.Announce(announced()) // no change
		time.Sleep(5 * time.Second)
		synctest.Wait()
		var order []string
		for _, s := range x.net.Sent(now) {
			m, _ := parse(s.Data)
			k := m.header["NTS"] + " " + m.header["BOOTID.UPNP.ORG"] + " " + fmt.Sprint(m.header["CONFIGID.UPNP.ORG"] == fmt.Sprint(before))
			if !slices.Contains(order, k) {
				order = append(order, k)
			}
		}
		if !slices.Equal(order, []string{"ssdp:byebye 1 true", "ssdp:alive 2 false"}) {
			t.Errorf("%q", order)
		}
		if doc := string(x.doc.Load().doc); !strings.Contains(doc, "<presentationURL>https://hallway-0011aabb.local:8443/</presentationURL>") || strings.Contains(doc, "schemas-upnp-org:device:") {
			t.Error(doc)
		}
	})
}

func TestOneHostCannotFillTheTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTester()
		x.start(t)
		for i := range 200 {
			id := fmt.Sprintf("00000000-0000-0000-0000-%012d", i)
			x.serves("http://10.0.0.66/"+id, desc("Fake", renderer, id))
			x.net.HearOn(1, "10.0.0.66:1900", true, alive(id, "upnp:rootdevice", "http://10.0.0.66/"+id, 1))
			time.Sleep(100 * time.Millisecond)
		}
		x.serves(urlA, desc("Real", renderer, uuidA))
		x.net.HearOn(1, host, true, alive(uuidA, "upnp:rootdevice", urlA, 1))
		time.Sleep(time.Second)
		if got := x.seen(); len(got) != 17 || got[uuidA].Instance != "Real" {
			t.Errorf("%d things are listed", len(got))
		}
	})
}

// A device that comes and goes all the time, or says that it is another at every turn,
// does not keep this node busy reading it.
func TestAFidgetIsReadNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTester()
		x.serves(urlA, desc("Fidget", renderer, uuidA))
		x.start(t)
		for i := range 400 {
			x.net.HearOn(1, host, true, alive(uuidA, "upnp:rootdevice", urlA, i))
			if i%2 == 0 {
				x.net.HearOn(1, host, true, bye(uuidA, "upnp:rootdevice"))
			}
			time.Sleep(50 * time.Millisecond)
		}
		if n := x.fetched.Load(); n < 10 || n > 45 {
			t.Errorf("its description was read %d times in 20 s", n)
		}
		x.serves(urlB, desc("Other", renderer, uuidB))
		x.net.HearOn(1, "10.0.0.10:1900", true, alive(uuidB, "upnp:rootdevice", urlB, 1))
		time.Sleep(time.Second)
		if x.seen()[uuidB].Instance != "Other" {
			t.Error("another device is not read meanwhile")
		}
	})
}

// A description that cannot be had, or is somebody else's, leaves a device without kind;
// it is asked for again.
func TestDescriptionsThatLie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTester()
		x.start(t)
		x.serves(urlA, desc("Stolen", renderer, own))
		say := func() {
			x.net.HearOn(1, host, true, alive(uuidA, "upnp:rootdevice", urlA, 1))
			time.Sleep(time.Second)
		}
		say()
		if got := x.seen()[uuidA]; got.Kind != "upnp:rootdevice" || got.Instance == "Stolen" {
			t.Errorf("%+v", got)
		}
		x.serves(urlA, desc("Own", renderer, uuidA))
		say()
		if n := x.fetched.Load(); n != 1 {
			t.Errorf("asked %d times within a second", n)
		}
		time.Sleep(retryAfter)
		say()
		if got := x.seen()[uuidA]; got.Kind != renderer || got.Instance != "Own" {
			t.Errorf("%+v", got)
		}
	})
}
