package overlay

import (
	"errors"
	"sync"
	"time"
)

var errSlept = errors.New("this node slept; the home may have changed meanwhile")

// sleep notices that the node did not run for as long as makes its peers give it up: the
// process was stopped, or the machine suspended.
type sleep struct {
	mu   sync.Mutex
	seen time.Time // when the node last proved to itself that it runs
}

// slept reports whether too long has passed since the last beat. Both clocks count: the
// monotonic one stands still while the machine is suspended, the other may be set back.
func (s *sleep) slept(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.seen.IsZero() && max(now.Sub(s.seen), now.Round(0).Sub(s.seen.Round(0))) > silentAfter
}

func (s *sleep) beat(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = now
}

// stayedAwake is asked by the ticker every watchEvery (beat), and before anything that came
// over a SIP flow is passed on. A node that slept ends every flow, also what waits in
// them, and compares rosters before it serves anybody again.
func (m *Mesh) stayedAwake(beat bool) {
	now := time.Now()
	if m.sleep.slept(now) {
		m.mu.Lock()
		m.gate.shut()
		for _, f := range m.flows {
			f.cancel() // before the beat: who asks after it finds its flow ended
		}
		m.started, beat = now, true // dial everybody at once
		m.mu.Unlock()
		m.log.Info("the node slept; it compares rosters before it serves anybody")
	}
	if beat {
		m.sleep.beat(now)
	}
}

// fresh refuses what a flow has brought while the node slept.
func (m *Mesh) fresh(f *flow) error {
	m.stayedAwake(false)
	if f.ctx.Err() != nil {
		return errSlept
	}
	return nil
}
