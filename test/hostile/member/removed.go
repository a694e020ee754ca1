package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// event says what a node still gave to this key.
type event struct {
	At     time.Time `json:"at"`
	Target string    `json:"target"`
	What   string    `json:"what"` // flow, records, sip, closed, refused
}

// again is how often a removed device knocks, asks how often it wants everything: fewer
// times than anybody is answered.
const again, asks = 100 * time.Millisecond, 400 * time.Millisecond

// removed holds an overlay and a SIP flow with every target, asks on both, and dials anew
// whenever it is put out.
func removed(ctx context.Context, me *identity, targets []string) error {
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	tell := func(target, what string) {
		mu.Lock()
		defer mu.Unlock()
		_ = out.Encode(event{time.Now(), target, what})
	}
	var wg sync.WaitGroup
	for _, t := range targets {
		for _, alpn := range []string{alpnOverlay, alpnSIP} {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for pause(ctx, again) {
					me.hold(ctx, t, alpn, func(what string) { tell(t, what) })
				}
			}()
		}
	}
	wg.Wait()
	return nil
}

// hold keeps one flow until the other side ends it.
func (me *identity) hold(ctx context.Context, target, alpn string, tell func(string)) {
	c, err := me.dial(ctx, target, alpn)
	if err != nil {
		tell("refused " + alpn)
		return
	}
	defer func() { _ = c.NetConn().Close() }()
	tell("flow " + alpn)
	defer tell("closed " + alpn)
	stop := context.AfterFunc(ctx, func() { _ = c.NetConn().Close() })
	defer stop()
	every := again
	if alpn == alpnOverlay {
		every = asks
	}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		for i := 1; ; i++ {
			msg := []byte(me.options(target, i))
			if alpn == alpnOverlay {
				msg = append(frameOf(kindPing, nil), me.giveMe()...)
			}
			if _, err := c.Write(msg); err != nil || !pause(ctx, every) {
				return
			}
		}
	}()
	if alpn == alpnSIP {
		for lines := bufio.NewScanner(c); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "SIP/2.0 ") {
				tell("sip")
			}
		}
	} else {
		for kind, err := readFrame(c); err == nil; kind, err = readFrame(c) {
			if kind == kindRecords {
				tell("records")
			}
		}
	}
	_ = c.NetConn().Close()
	<-asked
}

// giveMe asks for all that the others have said, as somebody who has nothing.
func (me *identity) giveMe() []byte {
	var all []writerState
	for _, m := range me.others() {
		all = append(all, writerState{Writer: m.Node})
	}
	return frameOf(kindState, encode(frame{State: all}))
}

// options asks whether SIP is served (RFC 3261 section 11).
func (me *identity) options(target string, n int) string {
	from := fmt.Sprintf("sip:%s@%s", me.slug(), me.domain())
	return strings.Join([]string{
		"OPTIONS " + from + " SIP/2.0",
		fmt.Sprintf("Via: SIP/2.0/TLS removed.invalid:5061;branch=z9hG4bKrm%s%d", token(), n),
		"Max-Forwards: 70", "From: <" + from + ">;tag=" + token(), "To: <" + from + ">",
		"Call-ID: " + token() + "@" + target, fmt.Sprintf("CSeq: %d OPTIONS", n), "Content-Length: 0", "", "",
	}, "\r\n")
}
