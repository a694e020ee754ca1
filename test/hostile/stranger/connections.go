package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/hallway-home/hallway/devices/trust"
)

// connectionAttack opens one connection and does something with it; each runs once at a
// time for each target, again after a pause.
type connectionAttack struct {
	name  string
	every time.Duration
	run   func(ctx context.Context, s *stranger, target netip.Addr, n int)
}

func connectionAttacks() []connectionAttack {
	const fast, slow = 5 * time.Millisecond, 20 * time.Millisecond
	return []connectionAttack{
		{"silent connections", fast, silent},
		{"half a handshake", fast, halfHandshake},
		{"no TLS at all", fast, noTLS},
		{"wrong ALPN", slow, withALPN("h2")},
		{"no ALPN", slow, withALPN()},
		{"a stranger's key for the overlay", slow, withALPN("hallway-overlay/1")},
		{"a stranger's key for SIP", slow, withALPN("sip")},
		{"no certificate", slow, noCertificate},
		{"TLS 1.2", slow, oldTLS},
		{"pairing, silent", slow, pairSilent},
		{"pairing, noise", slow, pairNoise},
	}
}

// held bounds the connections that one attack keeps open at a time.
const held = 64

func open(ctx context.Context, target netip.Addr) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return (&net.Dialer{}).DialContext(ctx, "tcp", netip.AddrPortFrom(target, 5061).String())
}

// volley opens many at once, says something on each, and keeps them for a while.
func volley(ctx context.Context, target netip.Addr, say func(net.Conn)) {
	var conns []net.Conn
	for range held {
		c, err := open(ctx, target)
		if err != nil {
			break
		}
		conns = append(conns, c)
		say(c)
	}
	pause(ctx, time.Second)
	for _, c := range conns {
		_ = c.Close()
	}
}

func silent(ctx context.Context, _ *stranger, t netip.Addr, _ int) {
	volley(ctx, t, func(net.Conn) {})
}

// halfHandshake stops in the middle of a ClientHello that is said to be long.
func halfHandshake(ctx context.Context, _ *stranger, t netip.Addr, _ int) {
	volley(ctx, t, func(c net.Conn) { _, _ = c.Write([]byte{22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb, 3, 3}) })
}

// noTLS says what is no record, or one that is longer than any may be (RFC 8446 section 5.1).
func noTLS(ctx context.Context, _ *stranger, t netip.Addr, n int) {
	c, err := open(ctx, t)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	b := noise(4096)
	if n%2 == 0 {
		copy(b, []byte{22, 3, 3, 0xff, 0xff})
	}
	_ = c.SetDeadline(time.Now().Add(500 * time.Millisecond))
	_, _ = c.Write(b)
	_, _ = c.Read(b)
}

// dress makes a TLS configuration over a fresh key.
func dress(alpn ...string) (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert, err := trust.NodeCertificate(key)
	return &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, NextProtos: alpn,
		InsecureSkipVerify: true, //nolint:gosec // a hostile program trusts whom it attacks
	}, err
}

// shake completes a handshake and gives what comes of it to f.
func shake(ctx context.Context, t netip.Addr, conf *tls.Config, f func(*tls.Conn)) {
	raw, err := open(ctx, t)
	if err != nil {
		return
	}
	defer func() { _ = raw.Close() }()
	c := tls.Client(raw, conf)
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if c.HandshakeContext(ctx) == nil {
		f(c)
	}
}

func withALPN(alpn ...string) func(context.Context, *stranger, netip.Addr, int) {
	return func(ctx context.Context, _ *stranger, t netip.Addr, _ int) {
		conf, err := dress(alpn...)
		if err != nil {
			return
		}
		shake(ctx, t, conf, func(c *tls.Conn) {
			_, _ = c.Write(noise(16 << 10)) // before the verdict has come
			_, _ = c.Read(make([]byte, 100))
		})
	}
}

func noCertificate(ctx context.Context, _ *stranger, t netip.Addr, _ int) {
	conf, err := dress("sip")
	if err != nil {
		return
	}
	conf.Certificates = nil
	shake(ctx, t, conf, func(c *tls.Conn) { _, _ = c.Read(make([]byte, 100)) })
}

func oldTLS(ctx context.Context, _ *stranger, t netip.Addr, _ int) {
	conf, err := dress("sip")
	if err != nil {
		return
	}
	conf.MaxVersion = tls.VersionTLS12
	shake(ctx, t, conf, func(*tls.Conn) {})
}

// pairSilent opens pairing connections and holds them without a word.
func pairSilent(ctx context.Context, _ *stranger, t netip.Addr, _ int) {
	conf, err := dress("hallway-pair/1")
	if err != nil {
		return
	}
	shake(ctx, t, conf, func(c *tls.Conn) {
		go func() { // kept open behind our back, as long as the other side lets it
			keep := c.NetConn().(*net.TCPConn)
			if f, err := keep.File(); err == nil {
				pause(ctx, 6*time.Second)
				_ = f.Close()
			}
		}()
		time.Sleep(time.Millisecond)
	})
}

// pairNoise sends lengths that are too long, CBOR that is none, and an unknown question.
func pairNoise(ctx context.Context, _ *stranger, t netip.Addr, n int) {
	conf, err := dress("hallway-pair/1")
	if err != nil {
		return
	}
	body := [][]byte{
		noise(500), {0xbf, 0x01, 0xff}, []byte("\xa1\x01\x66resume"), []byte("\xa1\x01\x65hello"), []byte("\xa2\x01\x65share\x05\x41\x04"),
	}[n%5]
	size := uint32(len(body))
	if n%7 == 0 {
		size = 1 << 31
	}
	shake(ctx, t, conf, func(c *tls.Conn) {
		_, _ = c.Write(append(binary.BigEndian.AppendUint32(nil, size), body...))
		_, _ = c.Read(make([]byte, 1000))
	})
}
