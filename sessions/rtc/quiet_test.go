package rtc

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// Both families, in both directions, without an allocation; what the system says comes back.
func TestQuietConn(t *testing.T) {
	for _, at := range []string{"127.0.0.1", "::1"} {
		t.Run(at, func(t *testing.T) {
			a, b := quietOn(t, at), quietOn(t, at)
			from, to := a.LocalAddr().(*net.UDPAddr).AddrPort(), b.LocalAddr().(*net.UDPAddr).AddrPort()
			hello, buf := []byte("hello"), make([]byte, 2000)
			exchange := func() {
				if n, err := a.WriteToAddrPort(hello, to); n != 5 || err != nil {
					t.Fatal(n, err)
				}
				if n, src, err := b.ReadFromAddrPort(buf); err != nil || string(buf[:n]) != "hello" || src != from {
					t.Fatalf("%q from %v, not %v: %v", buf[:n], src, from, err)
				}
			}
			if allocs := testing.AllocsPerRun(200, exchange); allocs > 0 {
				t.Errorf("%v allocations for a packet", allocs)
			}
			if n, err := a.WriteToAddrPort(nil, to); n != 0 || err != nil {
				t.Errorf("an empty datagram: %d, %v", n, err)
			}
			if n, _, err := b.ReadFromAddrPort(buf); n != 0 || err != nil {
				t.Errorf("an empty datagram: %d, %v", n, err)
			}
			if _, err := a.WriteToAddrPort(make([]byte, 1<<16), to); !errors.Is(err, syscall.EMSGSIZE) {
				t.Errorf("a datagram that is too long: %v", err)
			}
			closed := time.AfterFunc(20*time.Millisecond, func() { _ = b.Close() })
			defer closed.Stop()
			if _, _, err := b.ReadFromAddrPort(buf); !errors.Is(err, net.ErrClosed) {
				t.Errorf("a read that was waiting: %v", err)
			}
			if _, err := b.WriteToAddrPort([]byte("x"), from); !errors.Is(err, net.ErrClosed) {
				t.Errorf("a write after the end: %v", err)
			}
		})
	}
}

func quietOn(t *testing.T, at string) *quietConn {
	t.Helper()
	addr := netip.MustParseAddr(at)
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	q, err := newQuietConn(u, addr)
	if err != nil {
		t.Fatal(err)
	}
	return q
}
