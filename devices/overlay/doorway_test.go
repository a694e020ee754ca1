package overlay

import (
	"net"
	"testing"
	"time"
)

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
