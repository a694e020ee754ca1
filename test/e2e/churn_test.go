package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	// crowd is the number of agents of A14.
	crowd = 30
	// leaveKnown and joinKnown are the detection times that A4 and A2 allow, with what two
	// cores need to start a process among thirty others.
	leaveKnown, joinKnown = 5 * time.Second, 5 * time.Second
)

// inhabitant is one of the crowd; up and since are what is true of it.
type inhabitant struct {
	*node
	slug string

	mu    sync.Mutex
	up    bool
	since time.Time
}

func (x *inhabitant) set(up bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.up, x.since = up, time.Now()
}

// settled says what is true of it, if that has been so for longer than may go unnoticed.
func (x *inhabitant) settled(now time.Time) (up, settled bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	d := leaveKnown
	if x.up {
		d = joinKnown
	}
	return x.up, now.Sub(x.since) > d
}

// settle makes a home of the crowd: everybody joins, two at a time.
func settle(t *testing.T, l *labT, n int) []*inhabitant {
	t.Helper()
	all := make([]*inhabitant, n)
	for i := range all {
		name := fmt.Sprintf("n%02d", i)
		all[i] = &inhabitant{node: newNode(t, l, name, "speaker", fmt.Sprintf("Room %d", i%5), "--log-level", "error"), slug: name}
	}
	owner := all[0]
	owner.start().found()
	owner.set(true)
	for _, x := range all[1:] {
		token := ask[struct{ Token string }](owner.node, "invite").Token
		x.start("--join", token)
		owner.eventually(20*time.Second, x.name+" joins", func() bool { s, _ := x.status(t.Context(), owner, x.slug); return s == "reachable" })
		x.set(true)
	}
	for _, x := range all {
		x.eventually(20*time.Second, "it sees everybody", func() bool {
			for _, y := range all {
				if s, _ := y.status(t.Context(), x, y.slug); s != "reachable" {
					return false
				}
			}
			return true
		})
	}
	return all
}

// status is what a node answers when it is asked for a name, over its socket.
func (*inhabitant) status(ctx context.Context, asked *inhabitant, slug string) (string, error) {
	var r struct{ Devices []device }
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	code, err := asked.direct(ctx, http.MethodGet, "/resolve/"+slug, &r)
	switch {
	case err != nil:
		return "", err
	case code == http.StatusNotFound:
		return "unknown", nil
	}
	for _, d := range r.Devices {
		if d.Slug == slug {
			return d.Status, nil
		}
	}
	return "missing", nil
}

// lookUps counts right and wrong answers.
type lookUps struct {
	right, wrong, skipped atomic.Int64
	mu                    sync.Mutex
	examples              []string
}

func (u *lookUps) one(ctx context.Context, all []*inhabitant, rnd *rand.Rand) {
	asked, target := all[rnd.IntN(len(all))], all[rnd.IntN(len(all))]
	before := time.Now()
	if up, ok := asked.settled(before); !ok || !up {
		return // ask who lives
	}
	got, err := asked.status(ctx, asked, target.slug)
	up, ok := target.settled(before)
	if stillUp, still := asked.settled(before); !stillUp || !still {
		return // it was taken away while it answered
	}
	want := "unreachable"
	if up {
		want = "reachable"
	}
	switch {
	case !ok: // both are right while it is being noticed
		if got == "reachable" || got == "unreachable" {
			u.skipped.Add(1)
			return
		}
		fallthrough
	case err != nil || got != want:
		u.wrong.Add(1)
		u.mu.Lock()
		if len(u.examples) < 10 {
			u.examples = append(u.examples, fmt.Sprintf("%s says that %s is %q, it has been %q for %v (%v)", asked.slug, target.slug, got, want, time.Since(target.since).Round(time.Millisecond), err))
		}
		u.mu.Unlock()
	default:
		u.right.Add(1)
	}
}

// Thirty agents, one joining or leaving every second: 99.9 % of look-ups, asked of any
// living one, are right.
func TestA14_ThirtyAgentsComeAndGo(t *testing.T) {
	l := newLab(t)
	start := time.Now()
	all := settle(t, l, crowd)
	t.Logf("%d agents settled in %v on %d cores", crowd, time.Since(start).Round(time.Second), runtime.NumCPU())
	time.Sleep(joinKnown)
	lasting := length("HALLWAY_CHURN", 20*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), lasting)
	defer cancel()
	var u lookUps
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewPCG(14, uint64(i))) //nolint:gosec // a reproducible choice, no secret
			for ctx.Err() == nil {
				u.one(t.Context(), all, rnd)
				time.Sleep(5 * time.Millisecond) // 800 questions a second are enough
			}
		}()
	}
	changes := churn(ctx, t, all)
	wg.Wait()
	right, wrong := u.right.Load(), u.wrong.Load()
	share := float64(right) / float64(right+wrong) * 100
	t.Logf("%d changes in %v; %d look-ups right, %d wrong, %d about what had just changed: %.3f %%", changes, lasting, right, wrong, u.skipped.Load(), share)
	for _, e := range u.examples {
		t.Log(e)
	}
	if right < int64(lasting.Seconds())*50 || share < 99.9 {
		t.Errorf("%.3f %% of %d look-ups were right, 99.9 %% are meant", share, right+wrong)
	}
}

// churn changes one agent a second: kills it, stops it, or starts it again; at most a
// third is away at a time, and the owner as any other.
func churn(ctx context.Context, t *testing.T, all []*inhabitant) (changes int) {
	rnd := rand.New(rand.NewPCG(1, 4)) //nolint:gosec // a reproducible choice, no secret
	away := []*inhabitant{}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return changes
		case <-tick.C:
		}
		changes++
		if len(away) > 0 && (rnd.IntN(2) == 0 || len(away) >= len(all)/3) {
			x := away[0]
			away = away[1:]
			x.set(true) // from here on others may see it
			x.start()
			continue
		}
		x := all[rnd.IntN(len(all))]
		for !x.isUp() {
			x = all[rnd.IntN(len(all))]
		}
		x.set(false)
		if rnd.IntN(2) == 0 {
			x.signal(syscall.SIGKILL)
			<-x.done
			x.cmd = nil
		} else {
			x.stop()
		}
		x.set(false)
		away = append(away, x)
	}
}

func (x *inhabitant) isUp() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.up
}
