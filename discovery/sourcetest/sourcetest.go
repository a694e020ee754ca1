// Package sourcetest holds what every discovery.Source must do, whatever protocol it
// speaks, as one suite that the tests of each protocol run (in the manner of perkeep's
// storagetest), and a network in memory for those that stand on package multicast.
//
// It is for tests only and runs in a synctest bubble: time is virtual, and a goroutine
// that a source leaves behind fails the test.
package sourcetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallway-home/hallway/discovery"
)

// Peer is a source on two interfaces of one network, and one thing on it. What the thing
// says is heard on both interfaces.
type Peer struct {
	Source discovery.Source
	// Say makes the thing say that it is there, as other people's software does. Another
	// version is another content of the same thing.
	Say func(version int)
	Bye func()
	// Hear gives the source any packet from a neighbour, on both interfaces.
	Hear func(data []byte)
	// Broken packets of the protocol: nothing in them may be believed.
	Broken [][]byte
	// Life is how long the thing is listed after its last word, at most.
	Life time.Duration
}

const (
	// soon is how long a source may take to see what was said.
	soon = 5 * time.Second
	// garbage packets of random bytes.
	garbage = 500
)

// log is what a source reported.
type log struct {
	mu  sync.Mutex
	all []discovery.Sighting
}

func (l *log) take(s discovery.Sighting) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, s)
}

// news returns the reports since the last call that say more than "heard again".
func (l *log) news(last *discovery.Sighting) []discovery.Sighting {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []discovery.Sighting
	for _, s := range l.all {
		before, now := *last, s
		before.Seen, now.Seen = time.Time{}, time.Time{}
		if !reflect.DeepEqual(before, now) {
			out = append(out, s)
		}
		*last = s
	}
	l.all = nil
	return out
}

// Run runs the suite. open is called in a fresh bubble for each part.
func Run(t *testing.T, open func(t *testing.T) Peer) {
	for name, part := range map[string]func(*testing.T, Peer, func() []discovery.Sighting){
		"appears once on two interfaces, updates on change only, goodbye": comesChangesGoes,
		"expires when silent":                expires,
		"garbage changes nothing":            nothingFromGarbage,
		"ends with its context, mid-traffic": func(_ *testing.T, p Peer, _ func() []discovery.Sighting) { p.Say(1) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := open(t)
				l, last := &log{}, discovery.Sighting{}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- p.Source.Run(ctx, l.take) }()
				synctest.Wait()
				part(t, p, func() []discovery.Sighting { synctest.Wait(); return l.news(&last) })
				cancel()
				select {
				case err := <-done:
					if err != nil {
						t.Errorf("Run returned %v", err)
					}
				case <-time.After(soon):
					t.Error("Run did not return after its context ended")
				}
			})
		})
	}
}

func comesChangesGoes(t *testing.T, p Peer, news func() []discovery.Sighting) {
	p.Say(1)
	time.Sleep(soon)
	got := news()
	if len(got) != 1 || got[0].Gone || got[0].ID == "" || got[0].Source == "" || got[0].Kind == "" || got[0].Instance == "" || len(got[0].Addrs) == 0 || got[0].Seen.IsZero() {
		t.Fatalf("a thing that appeared was reported as %+v", got)
	}
	first := got[0]
	for range 5 {
		p.Say(1)
		time.Sleep(soon)
	}
	if got := news(); len(got) > 0 {
		t.Errorf("it repeated itself, and %d changes were reported: %+v", len(got), got)
	}
	p.Say(2)
	time.Sleep(soon)
	if got := news(); len(got) != 1 || got[0].Gone || got[0].ID != first.ID {
		t.Errorf("one change was reported as %+v", got)
	}
	p.Bye()
	time.Sleep(soon)
	if got := news(); len(got) != 1 || !got[0].Gone || got[0].ID != first.ID {
		t.Errorf("a goodbye was reported as %+v", got)
	}
	p.Bye()
	time.Sleep(soon)
	if got := news(); len(got) > 0 {
		t.Errorf("a second goodbye was reported as %+v", got)
	}
	p.Say(2)
	time.Sleep(soon)
	if got := news(); len(got) != 1 || got[0].Gone {
		t.Errorf("its return was reported as %+v", got)
	}
}

func expires(t *testing.T, p Peer, news func() []discovery.Sighting) {
	p.Say(1)
	time.Sleep(soon)
	if got := news(); len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	time.Sleep(p.Life / 2)
	if got := news(); len(got) > 0 {
		t.Errorf("after half of its life: %+v", got)
	}
	time.Sleep(p.Life/2 + soon)
	if got := news(); len(got) != 1 || !got[0].Gone {
		t.Errorf("after its life: %+v", got)
	}
}

func nothingFromGarbage(t *testing.T, p Peer, news func() []discovery.Sighting) {
	p.Say(1)
	time.Sleep(soon)
	if got := news(); len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same garbage every time
	for i := range garbage {
		b := make([]byte, r.IntN(1500))
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		p.Hear(b)
		if i%50 == 0 {
			time.Sleep(time.Second)
		}
	}
	for i, b := range p.Broken {
		p.Hear(b)
		time.Sleep(soon)
		if got := news(); len(got) > 0 {
			t.Errorf("broken packet %d was believed: %s", i, fmt.Sprintf("%+v", got))
		}
	}
	p.Bye() // and it still listens
	time.Sleep(soon)
	if got := news(); len(got) != 1 || !got[0].Gone {
		t.Errorf("after the garbage a goodbye was reported as %+v", got)
	}
}
