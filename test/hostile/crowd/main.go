// Command crowd is a hostile neighbour for the tests: it holds many connections to one HTTPS server and
// says nothing on them, or too little: half a handshake, a header or a body by one byte a second, a
// WebSocket that is never asked for to the end. What the server ends it opens again, 5 s later. It says "up" once
// every connection was tried.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"net"
	"sync"
	"time"
)

const again, drip = 5 * time.Second, time.Second

// kind of connection, in the order in which they are opened.
type kind struct {
	count  int
	secure bool   // after a whole handshake
	start  string // said at once; then a byte every drip
	drips  bool
}

func main() {
	target := flag.String("target", "", "address and port")
	host := flag.String("host", "", "host and port of the origin")
	idle := flag.Int("idle", 1000, "connections that say nothing")
	each := flag.Int("each", 250, "connections of each slow kind")
	length := flag.Duration("for", time.Minute, "how long")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), *length)
	defer cancel()
	head := " HTTP/1.1\r\nHost: " + *host + "\r\nOrigin: https://" + *host + "\r\n"
	kinds := []kind{
		{*idle, false, "", false},
		{*each, false, "\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb\x03\x03", false}, // a ClientHello that does not come (RFC 8446 section 4.1.2)
		{*each, true, "GET / HTTP/1.1\r\nX: ", true},
		{*each, true, "GET /sip" + head + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: sip\r\n", false},
		{*each, true, "POST /api/v1/session" + head + "Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n{", true},
	}
	var tried, all sync.WaitGroup
	for _, k := range kinds {
		for range k.count {
			tried.Add(1)
			first := sync.OnceFunc(tried.Done)
			all.Go(func() {
				for ctx.Err() == nil {
					k.hold(ctx, *target, first)
					first()
					pause(ctx, again)
				}
			})
			pause(ctx, time.Millisecond)
		}
	}
	tried.Wait()
	fmt.Println("up")
	all.Wait()
}

// hold keeps one connection until the server ends it.
func (k kind) hold(ctx context.Context, target string, started func()) {
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", target)
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	defer func() { _ = c.Close() }()
	if k.secure {
		s := tls.Client(c, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a hostile program believes whomever it attacks
		if s.HandshakeContext(ctx) != nil {
			return
		}
		c = s
	}
	if _, err := c.Write([]byte(k.start)); err != nil {
		return
	}
	started()
	if k.drips {
		go func() {
			for pause(ctx, drip) {
				if _, err := c.Write([]byte("x")); err != nil {
					return
				}
			}
		}()
	}
	for b := make([]byte, 1024); ; {
		if _, err := c.Read(b); err != nil {
			return
		}
	}
}

// pause waits, unless it is over.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
