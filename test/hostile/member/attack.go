package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"os"
	"sync"
	"time"
)

// bout is one kind of attack on one flow; it returns when it has said all, or when the
// other side has ended the flow.
type bout struct {
	name string
	deaf bool // nothing is read meanwhile
	run  func(context.Context, *assault) error
}

// assault is what a bout works with.
type assault struct {
	me     *identity
	target string
	conn   *tls.Conn
	sent   int
	round  int
}

func (a *assault) write(b []byte) error {
	_ = a.conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
	_, err := a.conn.Write(b)
	if err == nil {
		a.sent++
	}
	return err
}

// tally counts what was said and how often the other side ended the flow for it.
type tally struct {
	mu    sync.Mutex
	Said  map[string]int `json:"said"`
	Ended map[string]int `json:"ended"`
}

// attack runs the bouts one after the other, round and round, on every target and both
// protocols at once.
func attack(ctx context.Context, me *identity, targets []string) error {
	t := &tally{Said: map[string]int{}, Ended: map[string]int{}}
	var wg sync.WaitGroup
	for _, target := range targets {
		for alpn, bouts := range map[string][]bout{alpnOverlay: overlayBouts(), alpnSIP: sipBouts()} {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for round := 0; ctx.Err() == nil; round++ {
					b := bouts[round%len(bouts)]
					one := &assault{me: me, target: target, round: round}
					ended := one.fight(ctx, alpn, b)
					t.mu.Lock()
					t.Said[b.name] += one.sent
					t.Ended[b.name] += ended
					t.mu.Unlock()
					pause(ctx, 20*time.Millisecond)
				}
			}()
		}
	}
	wg.Wait()
	return json.NewEncoder(os.Stdout).Encode(t)
}

// fight opens a flow for one bout.
func (a *assault) fight(ctx context.Context, alpn string, b bout) (ended int) {
	var err error
	if a.conn, err = a.me.dial(ctx, a.target, alpn); err != nil {
		pause(ctx, 200*time.Millisecond)
		return 0
	}
	defer func() { _ = a.conn.NetConn().Close() }()
	read := make(chan struct{})
	go func() {
		defer close(read)
		if !b.deaf {
			_, _ = io.Copy(io.Discard, a.conn)
		}
	}()
	bctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	err = b.run(bctx, a)
	cancel()
	_ = a.conn.NetConn().Close()
	<-read
	if err != nil {
		return 1
	}
	return 0
}
