package impair

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/test/netlab"
)

func TestFaultsComeAsOftenAsSaidAndFromTheSeed(t *testing.T) {
	const n = 20000
	f := Faults{Loss: 0.1, Duplicate: 0.05, Reorder: 0.02, Delay: 30 * time.Millisecond, Jitter: 10 * time.Millisecond, Seed: 7}
	count := func() (lost, twice, early int, sum time.Duration, all []time.Duration) {
		r := rand.New(rand.NewPCG(f.Seed, 0))
		for range n {
			at := f.arrivals(r)
			switch len(at) {
			case 0:
				lost++
			case 2:
				twice++
			}
			for _, d := range at {
				if d == 0 {
					early++
				} else if d < 20*time.Millisecond || d > 40*time.Millisecond {
					t.Fatalf("a delay of %v", d)
				}
				sum += d
			}
			all = append(all, at...)
		}
		return
	}
	lost, twice, early, sum, all := count()
	near := func(what string, got int, want float64) {
		if math.Abs(float64(got)-want) > 5*math.Sqrt(want) {
			t.Errorf("%s: %d, about %.0f were due", what, got, want)
		}
	}
	near("lost", lost, 0.1*n)
	near("twice", twice, 0.05*0.9*n)
	near("early", early, 0.02*0.9*1.05*n)
	if mean := sum / time.Duration(len(all)-early); mean < 29*time.Millisecond || mean > 31*time.Millisecond {
		t.Errorf("mean delay %v", mean)
	}
	if _, _, _, _, again := count(); !slices.Equal(all, again) {
		t.Error("one seed must give one sequence")
	}
}

func TestACableIsAsBadAsAsked(t *testing.T) {
	l := netlab.For(t)
	a, b := l.MustHost(t, "a"), l.MustHost(t, "b")
	if err := l.Cut(b); err != nil {
		t.Fatal(err)
	}
	c, err := Join(l, Faults{})
	if err != nil {
		netlab.Missing(t, err.Error())
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	// knock is how long a TCP connection takes to be refused: one time there and back.
	knock := func(target string) (time.Duration, bool) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		start := time.Now()
		out, _ := a.Command(ctx, "bash", "-c", "exec 3<>/dev/tcp/"+target+"/80").CombinedOutput()
		return time.Since(start), strings.Contains(string(out), "refused")
	}
	for _, ip := range []string{b.IPv4, b.IPv6} {
		_, ok := knock(ip)
		for end := time.Now().Add(10 * time.Second); !ok && time.Now().Before(end); { // a busy machine
			_, ok = knock(ip)
		}
		if !ok {
			t.Errorf("%s does not answer over a good cable", ip)
		}
	}
	c.Set(Faults{Delay: 150 * time.Millisecond, Duplicate: 1})
	if took, ok := knock(b.IPv4); !ok || took < 300*time.Millisecond {
		t.Errorf("with 150 ms each way: %v after %v", ok, took)
	}
	c.Set(Faults{Loss: 1})
	if _, ok := knock(b.IPv6); ok {
		t.Error("an answer came over a cable that loses everything")
	}
	if s := c.Stats(); s.Taken == 0 || s.Lost == 0 || s.Repeated == 0 || s.Overflowed != 0 {
		t.Errorf("%+v", s)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
