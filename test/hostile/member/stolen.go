package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// theft is what came of it.
type theft struct {
	Rang      bool   `json:"rang"`
	Cancelled bool   `json:"cancelled"` // the accomplice's CANCEL ended a call that was not its own
	Own       string `json:"own"`       // how the caller's own CANCEL ended it
	Invited   bool   `json:"invited"`
}

// stolen lets an accomplice speak with the branches of calls that are not its own. First it
// calls the target and the accomplice sends the CANCEL; then the target calls, and the
// accomplice answers. What the target makes of the answers the test sees there.
func stolen(ctx context.Context, me, other *identity, target, to string) error {
	ctx, cancel := context.WithCancel(ctx)
	held := make(chan struct{})
	go func() { // or nobody calls it
		defer close(held)
		for pause(ctx, again) {
			me.hold(ctx, target, alpnOverlay, func(string) {})
		}
	}()
	defer func() { cancel(); <-held }()
	mine, err := me.dial(ctx, target, alpnSIP)
	if err != nil {
		return err
	}
	theirs, err := other.dial(ctx, target, alpnSIP)
	if err != nil {
		return err
	}
	defer func() { _ = mine.NetConn().Close(); _ = theirs.NetConn().Close() }()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	in := make(chan string, 16)
	go func() {
		defer close(in)
		for r := bufio.NewReader(mine); ; {
			m, err := readSIP(r)
			if err != nil {
				return
			}
			in <- m
		}
	}()
	var out theft
	stealCancel(ctx, me, to, mine, theirs, in, &out)
	fmt.Println("waiting") // for the target's call
	stealResponse(ctx, mine, theirs, in, &out)
	return json.NewEncoder(os.Stdout).Encode(out)
}

// next returns the first message that starts with one of the words, or "".
func next(ctx context.Context, in <-chan string, within time.Duration, words ...string) string {
	t := time.NewTimer(within)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ""
		case <-t.C:
			return ""
		case m, ok := <-in:
			if !ok {
				return ""
			}
			for _, w := range words {
				if strings.HasPrefix(m, w) {
					return m
				}
			}
		}
	}
}

// patience is how long a theft is given to work.
const patience = 1500 * time.Millisecond

func stealCancel(ctx context.Context, me *identity, to string, mine, theirs *tls.Conn, in <-chan string, out *theft) {
	a := &assault{me: me}
	invite := string(a.sip(message{method: "INVITE", from: me.slug(), to: to, body: offer}))
	_, _ = mine.Write([]byte(invite))
	out.Rang = next(ctx, in, 3*time.Second, "SIP/2.0 180") != ""
	head, _, _ := strings.Cut(invite, "\r\nContent-Type")
	cancel := []byte(strings.NewReplacer("INVITE sip", "CANCEL sip", "1 INVITE", "1 CANCEL").Replace(head) + "\r\nContent-Length: 0\r\n\r\n")
	_, _ = theirs.Write(cancel)
	out.Cancelled = next(ctx, in, patience, "SIP/2.0 4", "SIP/2.0 5", "SIP/2.0 6") != ""
	_, _ = mine.Write(cancel)
	own := next(ctx, in, 3*time.Second, "SIP/2.0 4", "SIP/2.0 5", "SIP/2.0 6")
	out.Own, _, _ = strings.Cut(own, "\r\n")
}

func stealResponse(ctx context.Context, mine, theirs *tls.Conn, in <-chan string, out *theft) {
	invite := next(ctx, in, 10*time.Second, "INVITE")
	if out.Invited = invite != ""; !out.Invited {
		return
	}
	answer := func(c *tls.Conn, line, body string) {
		var keep []string
		for l := range strings.SplitSeq(invite, "\r\n") {
			name, _, _ := strings.Cut(l, ":")
			switch name {
			case "To":
				l += ";tag=evil"
				fallthrough
			case "Via", "From", "Call-ID", "CSeq":
				keep = append(keep, l)
			}
		}
		if body != "" {
			keep = append(keep, "Content-Type: application/sdp", "Contact: <sip:x@evil.invalid>")
		}
		_, _ = fmt.Fprintf(c, "SIP/2.0 %s\r\n%s\r\nContent-Length: %d\r\n\r\n%s", line, strings.Join(keep, "\r\n"), len(body), body)
	}
	answer(mine, "180 Ringing", "")
	pause(ctx, 100*time.Millisecond)
	answer(theirs, "200 OK", strings.Replace(offer, "actpass", "active", 1))
	answer(theirs, "603 Decline", "")
	pause(ctx, patience)
	answer(mine, "486 Busy Here", "")
	pause(ctx, 200*time.Millisecond)
}

// readSIP reads one message off a flow.
func readSIP(r *bufio.Reader) (string, error) {
	var head strings.Builder
	length := 0
	for {
		l, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if strings.TrimSpace(l) == "" {
			if head.Len() == 0 {
				continue
			}
			break
		}
		if v, ok := strings.CutPrefix(l, "Content-Length:"); ok {
			length, _ = strconv.Atoi(strings.TrimSpace(v))
		}
		head.WriteString(l)
	}
	body := make([]byte, min(max(length, 0), 1<<20))
	_, err := io.ReadFull(r, body)
	return head.String() + "\r\n" + string(body), err
}
