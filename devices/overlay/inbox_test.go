package overlay

import (
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices/trust"
)

// What a peer sends waits in its order and within bounds, of many small frames as of large
// ones, and whoever takes ends when nothing is left.
func TestInboxIsBoundedAndInOrder(t *testing.T) {
	for _, size := range []int{0, 100, MaxFrame} {
		in := inbox{room: newWake()}
		n, memory := 0, 0
		for {
			ok, start := in.put(rawFrame{frameKind(n), make([]byte, size)})
			if start != (n == 0) {
				t.Fatalf("frame %d: start %v", n, start)
			}
			if !ok {
				break
			}
			n, memory = n+1, memory+size+64
		}
		if memory > maxWaiting || memory < maxWaiting-MaxFrame-64 {
			t.Errorf("%d frames of %d bytes wait, %d bytes", n, size, memory)
		}
		for i := range n {
			if r, ok := in.take(); !ok || r.kind != frameKind(i) {
				t.Fatalf("frame %d: %v, %v", i, r.kind, ok)
			}
		}
		select {
		case <-in.room:
		default:
			t.Error("the reader is not told that there is room")
		}
		if _, ok := in.take(); ok || in.bytes != 0 {
			t.Errorf("%d bytes are left", in.bytes)
		}
		if ok, start := in.put(rawFrame{framePing, nil}); !ok || !start {
			t.Error("nobody is to take what comes later")
		}
		in.end()
		if _, ok := in.take(); ok {
			t.Error("a lost flow's frame was taken")
		}
	}
}

// Who waits for a SIP flow is told when it is served, and at once.
func TestEnsureSIPWaitsForASignal(t *testing.T) {
	t.Parallel()
	n := home(t, 2, func(x *node) { x.manual = true })
	meet(t, n...)
	done := make(chan error, 1)
	go func() { done <- n[0].EnsureSIP(t.Context(), n[1].id) }()
	select {
	case err := <-done:
		t.Fatalf("nobody serves the flow yet: %v", err)
	case <-time.After(100 * time.Millisecond): // it must still wait
	}
	go drain(n[0].SIP())
	if err := <-done; err != nil || n[0].flow(n[1].id, trust.ALPNSIP) == nil {
		t.Fatal(err)
	}
}
