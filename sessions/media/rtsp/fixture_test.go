package rtsp

import (
	"testing"
	"time"

	"github.com/pion/rtp"
	"go.uber.org/goleak"

	"github.com/hallway-home/hallway/sessions"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// outlet takes every packet.
type outlet func(kind string, p *rtp.Packet)

func (outlet) Takes(string) bool { return true }

func (o outlet) WriteRTP(b sessions.Batch) {
	for _, p := range b.Packets {
		o(b.Kind, &p)
	}
}

func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 10 s: " + what)
		}
	}
}
