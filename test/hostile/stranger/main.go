// Command stranger is a hostile neighbour for the tests: it belongs to no home and speaks
// whatever a node listens to. It forges mDNS (goodbyes, conflicts, inventions, sources that
// are not on the link), floods the member port, and throws noise at SSDP and media ports.
// Everything is bounded by -rate and -for; it sends to the named targets and to multicast.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// stranger is what an attack works with.
type stranger struct {
	self    netip.Addr
	targets []netip.Addr
	names   []string // instance names of the targets, as they announce them
	media   []int
	raw     *rawSocket
	said    sync.Map // name of the attack → *atomic.Int64
}

func (s *stranger) count(what string) {
	n, _ := s.said.LoadOrStore(what, &atomic.Int64{})
	n.(*atomic.Int64).Add(1)
}

func main() {
	self := flag.String("self", "", "own IPv4 address")
	targets := flag.String("targets", "", "comma-separated IPv4 addresses")
	names := flag.String("names", "", "comma-separated instance names of the targets")
	media := flag.String("media", "", "comma-separated UDP ports of their media")
	rate := flag.Int("rate", 3000, "packets a second")
	length := flag.Duration("for", 20*time.Second, "how long")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *length)
	defer cancel()
	s, err := newStranger(*self, *targets, *names, *media)
	if err == nil {
		err = s.run(ctx, *rate)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "stranger:", err)
		os.Exit(1)
	}
}

func newStranger(self, targets, names, media string) (*stranger, error) {
	s := &stranger{names: strings.Split(names, ",")}
	var errs []error
	var err error
	s.self, err = netip.ParseAddr(self)
	errs = append(errs, err)
	for t := range strings.SplitSeq(targets, ",") {
		a, err := netip.ParseAddr(t)
		s.targets, errs = append(s.targets, a), append(errs, err)
	}
	for p := range strings.SplitSeq(media, ",") {
		n, err := strconv.Atoi(p)
		s.media, errs = append(s.media, n), append(errs, err)
	}
	s.raw, err = newRawSocket()
	return s, errors.Join(append(errs, err)...)
}

// run floods by datagram at the rate, and by connection as fast as the other side lets it.
func (s *stranger) run(ctx context.Context, rate int) error {
	var wg sync.WaitGroup
	for _, t := range s.targets {
		for _, a := range connectionAttacks() {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for n := 0; ctx.Err() == nil; n++ {
					a.run(ctx, s, t, n)
					s.count(a.name)
					pause(ctx, a.every)
				}
			}()
		}
	}
	s.datagrams(ctx, rate)
	wg.Wait()
	said := map[string]int64{}
	s.said.Range(func(k, v any) bool {
		said[k.(string)] = v.(*atomic.Int64).Load()
		return true
	})
	return json.NewEncoder(os.Stdout).Encode(said)
}

// datagrams sends the kinds in turn, a hundredth of a second's worth at a time.
func (s *stranger) datagrams(ctx context.Context, rate int) {
	kinds := datagramAttacks()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for range rate / 100 {
			k := kinds[n%len(kinds)]
			if d, ok := k.make(s, n/len(kinds)); ok && s.raw.send(d) == nil {
				s.count(k.name)
			}
			n++
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
