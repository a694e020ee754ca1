package overlay

import (
	"net"
	"testing"
	"time"
)

// A connection whose peer reads is drained, one whose peer does not is not: a ping to it
// waits in the queue instead of holding up the pings to all others.
func TestDrained(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = peer.Close() }()
	if !drained(c) {
		t.Error("nothing was written, and something waits")
	}
	_ = c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	for b := make([]byte, 1<<16); err == nil; {
		_, err = c.Write(b)
	}
	if drained(c) {
		t.Error("the peer reads nothing, and nothing waits")
	}
	if one, other := net.Pipe(); drained(one) || drained(other) {
		t.Error("what is no TCP connection cannot be asked")
	}
}
