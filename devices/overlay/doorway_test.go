package overlay

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// knock is a connection from an address.
type knock struct {
	net.Conn
	from   string
	closed bool
}

// RemoteAddr is where it comes from.
func (k *knock) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(k.from))
}

// Close notes that it was shown the door.
func (k *knock) Close() error { k.closed = true; return nil }

func TestDoorwayIsFair(t *testing.T) {
	now := time.Now()
	var d doorway
	come := func(from string) *knock {
		k := &knock{from: from}
		if !d.enter(k, now) {
			return nil
		}
		return k
	}
	var greedy []*knock
	for range maxFromOne {
		greedy = append(greedy, come("192.0.2.1:1"))
	}
	if come("192.0.2.1:1") != nil {
		t.Fatal("one host takes all places")
	}
	for range maxHandshakes - maxFromOne {
		if come("[2001:db8::1]:1") == nil {
			t.Fatal("a free place is refused")
		}
	}
	if come("192.0.2.7:1") == nil || !greedy[0].closed || greedy[1].closed {
		t.Fatal("a newcomer does not get the oldest place of the greediest host")
	}
	d.leave(greedy[1])
	if come("[2001:db8::ffff]:1") == nil || come("[2001:db8::2]:1") != nil {
		t.Fatal("one IPv6 network counts as many hosts")
	}
	now = now.Add(patience)
	if come("[2001:db8::2]:1") == nil {
		t.Fatal("the silent keep their places for ever")
	}
}

func TestDoorwayBoundsHandshakesOverTime(t *testing.T) {
	now := time.Now()
	var d doorway
	in := 0
	for i := range 5000 { // five seconds of a thousand a second
		k := &knock{from: "192.0.2.1:1"}
		if d.enter(k, now.Add(time.Duration(i)*time.Millisecond)) {
			in++
			d.leave(k)
		}
	}
	if in < arrivalBurst || in > arrivalBurst+5*arrivalsPerSecond+1 {
		t.Fatalf("%d of 5,000 were let in", in)
	}
	for i := range 3 * maxHosts {
		k := &knock{from: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1).String()}
		if !d.enter(k, now) {
			t.Fatal("a new host is refused")
		}
		d.leave(k)
	}
	if len(d.hosts) > maxHosts {
		t.Fatalf("%d hosts are remembered", len(d.hosts))
	}
}

// Strangers who connect and say nothing keep nobody out.
func TestSilentStrangersKeepNobodyOut(t *testing.T) {
	n := home(t, 2)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		var held []net.Conn
		for i := 0; ; i++ {
			select {
			case <-stop:
				for _, c := range held {
					_ = c.Close()
				}
				return
			case <-time.After(5 * time.Millisecond):
			}
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%2))}, Timeout: time.Second}
			if c, err := d.Dial("tcp", n[1].addr.String()); err == nil {
				held = append(held, c)
			}
			if len(held) > 200 {
				_ = held[0].Close()
				held = held[1:]
			}
		}
	}()
	eventually(t, 3*time.Second, "strangers wait at the door", func() bool {
		n[1].door.mu.Lock()
		defer n[1].door.mu.Unlock()
		return len(n[1].door.pending) == maxHandshakes
	})
	n[0].knows(n[1])
	took := eventually(t, 9*time.Second, "a member gets in", func() bool { return n[0].reaches(n[1]) && n[1].reaches(n[0]) })
	t.Logf("after %v", took)
	close(stop)
	<-done
}
