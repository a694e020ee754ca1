package sourcetest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hallway-home/hallway/discovery"
	"github.com/hallway-home/hallway/discovery/multicast"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// words is a protocol in which a thing says "here NAME" and "gone".
type words struct {
	net *Net
}

const life = time.Minute

func (w words) Run(ctx context.Context, report func(discovery.Sighting)) error {
	loop := multicast.NewLoop(w.net)
	table := multicast.NewTable(&loop.Agenda)
	table.Report = report
	receive := func(_ multicast.Link, p multicast.Packet) {
		way := multicast.Way{Iface: p.Iface, Host: p.From.Addr()}
		if name, ok := strings.CutPrefix(string(p.Data), "here "); ok {
			s := discovery.Sighting{Source: "words", ID: p.From.String(), Kind: "word", Instance: name}
			s.Addrs = append(s.Addrs, p.From)
			table.Put(s, way, life)
		} else if string(p.Data) == "gone" {
			table.Drop(p.From.String(), func(x multicast.Way) bool { return x == way })
		}
	}
	return loop.Run(ctx, multicast.Handler{Receive: receive, Relink: func(multicast.Change) {}, Tidy: func() {}})
}

// The suite passes a source that is right, so that it can be passed at all.
func TestASourceThatIsRight(t *testing.T) {
	Run(t, func(*testing.T) Peer {
		n := NewNet()
		return Peer{
			Source: words{n}, Life: life,
			Say:    func(v int) { n.Hear("10.0.0.9:1", true, fmt.Appendf(nil, "here %d", v)) },
			Bye:    func() { n.Hear("10.0.0.9:1", true, []byte("gone")) },
			Hear:   func(b []byte) { n.Hear("10.0.0.8:1", true, b) },
			Broken: [][]byte{[]byte("gone"), []byte("her"), nil},
		}
	})
}
