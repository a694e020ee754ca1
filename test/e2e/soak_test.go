package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// api is an agent's socket without a command in between: a command takes longer than a
// short call does.
type api struct {
	t    testing.TB
	http http.Client
}

func apiOf(n *node) *api {
	a := &api{t: n.t, http: http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(n.dir, "hallway.sock"))
		},
		MaxIdleConnsPerHost: 16,
	}}}
	n.t.Cleanup(a.http.CloseIdleConnections)
	return a
}

func (a *api) do(method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(a.t.Context(), method, "http://agent/api/v1"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // read only
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s", method, path, res.Status)
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(res.Body).Decode(out)
}

type process struct {
	Goroutines int   `json:"goroutines"`
	HeapLive   int64 `json:"heap_live"`
	OpenFiles  int   `json:"open_files"`
}

// settled is what agents use once nothing of their calls is left: SIP keeps a transaction
// for 32 s (RFC 3261 timers H, J and L), a socket of the API's clients is closed first.
func settled(all ...*api) (out []process) {
	time.Sleep(34 * time.Second)
	for _, a := range all {
		out = append(out, a.least())
	}
	return out
}

func (a *api) least() (p process) {
	a.t.Helper()
	a.http.CloseIdleConnections()
	for range 5 { // the least of a few looks: a heartbeat may be under way
		var q process
		if err := a.do("GET", "/process", nil, &q); err != nil {
			a.t.Fatal(err)
		}
		if p.Goroutines == 0 {
			p = q
		}
		p = process{min(p.Goroutines, q.Goroutines), min(p.HeapLive, q.HeapLive), min(p.OpenFiles, q.OpenFiles)}
		time.Sleep(200 * time.Millisecond)
	}
	return p
}

// short makes one call that hears something, and ends it; it returns how long the way
// from asking to the first sound was.
func short(a *api, to string) (time.Duration, error) {
	var c call
	start := time.Now()
	if err := a.do("POST", "/calls", map[string]any{"to": to, "video": true}, &c); err != nil {
		return 0, err
	}
	for ; c.State != "ended" && c.Stats.Audio.Received == 0; time.Sleep(2 * time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			return 0, fmt.Errorf("the call to %s is %s after 10 s", to, c.State)
		}
		if err := a.do("GET", "/calls/"+c.ID, nil, &c); err != nil {
			return 0, err
		}
	}
	if c.State == "ended" {
		return 0, fmt.Errorf("the call to %s ended: %s", to, c.Reason)
	}
	took := time.Since(start)
	return took, a.do("DELETE", "/calls/"+c.ID, nil, nil)
}

// HALLWAY_CALLS short calls with sound and picture (200 without it; 10,000 when it
// matters), four at a time: at the end caller and called use as many files as before, at
// most five more goroutines and five percent more memory.
func TestSoak_ShortCalls(t *testing.T) {
	total, err := strconv.Atoi(os.Getenv("HALLWAY_CALLS"))
	if err != nil {
		total = 200
	}
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", clip(t, 440)).start().found()
	var others []*node
	for i := range 4 {
		others = append(others, newNode(t, l, fmt.Sprintf("Panel %d", i+1), "panel", "", "--source-clip", clip(t, 550), "--auto-answer", "yes"))
	}
	tv.invite(others...)
	a, called := apiOf(tv), apiOf(others[0])
	round := func(n int) []time.Duration {
		var mu sync.Mutex
		var took []time.Duration
		var wg sync.WaitGroup
		for _, o := range others {
			wg.Go(func() {
				for range n / len(others) {
					d, err := short(a, slugOf(o.name))
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					took = append(took, d)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		slices.Sort(took)
		return took
	}
	round(400) // until every pool, and the list of old calls of each device, is full
	before := settled(a, called)
	start := time.Now()
	took := round(total)
	length := time.Since(start)
	if len(took) != total {
		t.Fatalf("%d of %d calls", len(took), total)
	}
	after := settled(a, called)
	t.Logf("%d calls in %v: %.1f a second; from asking to the first sound %v (median), %v (95 %%)", total, length.Round(time.Second), float64(total)/length.Seconds(),
		took[total/2].Round(100*time.Microsecond), took[total*95/100].Round(100*time.Microsecond))
	for i, who := range []string{"caller", "called"} {
		b, a := before[i], after[i]
		t.Logf("%s: %+v before, %+v after (heap %+.1f %%)", who, b, a, 100*float64(a.HeapLive-b.HeapLive)/float64(b.HeapLive))
		if a.OpenFiles != b.OpenFiles || a.Goroutines > b.Goroutines+5 || float64(a.HeapLive) > 1.05*float64(b.HeapLive) {
			t.Errorf("%s has grown", who)
		}
	}
}

// Calls, one after the other, for HALLWAY_SOAK (a few seconds without it), with the callee
// killed now and then: no file stays open and nobody ends.
func TestSoak_CallsWithoutGrowing(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("HALLWAY_SOAK"))
	if err != nil {
		length = 5 * time.Second
	}
	l := newLab(t)
	tv := newNode(t, l, "TV", "tv", "", "--source-clip", clip(t, 440)).start().found()
	panel := newNode(t, l, "Panel", "panel", "", "--source-clip", clip(t, 550), "--auto-answer", "yes")
	tv.invite(panel)
	one := func() {
		c := ask[call](tv, "call", "panel", "--detach")
		tv.eventually(5*time.Second, "it sees and hears", flows(tv, c.ID))
		tv.run("hangup", c.ID)
		panel.eventually(5*time.Second, "the end is known", func() bool { return panel.call(c.ID).State == "ended" })
	}
	for range 3 {
		one()
	}
	before, calls, kills := openFiles(t, tv), 0, 0
	for end := time.Now().Add(length); time.Now().Before(end); calls++ {
		one()
		if calls%40 == 39 {
			panel.kill()
			tv.eventually(5*time.Second, "the panel is gone", func() bool { return tv.sees("panel") == "unreachable" })
			panel.start()
			tv.eventually(10*time.Second, "the panel is back", func() bool { return tv.sees("panel") == "reachable" })
			panel.eventually(10*time.Second, "it sees the TV", func() bool { return panel.sees("tv") == "reachable" })
			kills++
		}
	}
	var after int
	tv.eventually(5*time.Second, fmt.Sprintf("no more files are open than before (%d)", before), func() bool {
		after = openFiles(t, tv)
		return after <= before+2 // a re-dial may be under way
	})
	t.Logf("%d calls, %d kills; open files %d before, %d after", calls, kills, before, after)
}

func openFiles(t *testing.T, n *node) int {
	t.Helper()
	fds, err := os.ReadDir(filepath.Join("/proc", fmt.Sprint(n.pid()), "fd"))
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
