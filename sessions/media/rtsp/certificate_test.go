package rtsp

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// selfSigned is a certificate as cameras make them for themselves.
func selfSigned(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0)} // its clock was wrong
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
}

// The certificate that a camera had when it was adopted is the one it must keep: with
// another one the view ends with a sentence, and the password was not told.
func TestCertificateOfACamera(t *testing.T) {
	c := newFakeCamera(t, false, h264Format())
	c.stop()
	c.tls = selfSigned(t)
	c.start()
	url := strings.Replace(c.url(), "rtsp:", "rtsps:", 1)
	d, err := Describe(t.Context(), url, nil)
	if err != nil || len(d.Certificate) != 64 || len(d.Tracks) != 1 {
		t.Fatalf("%+v, %v", d, err)
	}
	var wg sync.WaitGroup
	ctx, cancel := contextWithCancel(t)
	timing := badTiming()
	timing.patience = 5 * time.Second
	src := openCamera(ctx, &Camera{URL: url, Tracks: d.Tracks, Certificate: d.Certificate}, timing, &wg, slog.New(slog.DiscardHandler))
	v := view(src)
	waitFor(t, "it plays", func() bool { _, p, _ := c.state(); return p == 1 })
	c.send(0, 1, 3600, true, 0x65, 1, 2)
	waitFor(t, "a picture comes", func() bool { return len(v.of("video")) > 0 })
	if _, _, how := c.state(); how != "TCP" {
		t.Errorf("the picture comes by %s, in the clear", how)
	}
	before := c.asked
	c.stop()
	c.tls = selfSigned(t)
	c.start()
	select {
	case <-src.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the view goes on")
	}
	if err := src.Err(); !errors.Is(err, ErrCertificate) || !strings.Contains(err.Error(), "adopt it again") || strings.Contains(err.Error(), Fingerprint(d.Certificate)) {
		t.Errorf("its viewers read %q", err)
	}
	if c.asked != before {
		t.Error("the stranger was asked for a description, with the password")
	}
	v.stop()
	cancel()
	wg.Wait()
	again, err := Describe(t.Context(), url, nil)
	if err != nil || again.Certificate == d.Certificate || len(again.Certificate) != 64 {
		t.Errorf("adopted again: %+v, %v", again, err)
	}
	if got := Fingerprint(d.Certificate); len(got) != 39 || !strings.HasPrefix(d.Certificate, got[:4]) {
		t.Errorf("%q of %q", got, d.Certificate)
	}
	if _, err := Describe(t.Context(), "rtsps://u:p@"+newRawServer(t, func(k *talk) { _, _ = k.in.ReadByte(); k.say("RTSP/1.0 400 Bad Request\r\n\r\n") }).ln.Addr().String()+"/", nil); err == nil || !strings.Contains(err.Error(), "not with TLS") {
		t.Errorf("without TLS: %v", err)
	}
}

// A handshake that is not answered ends as a silent camera does.
func TestTLSThatNeverComes(t *testing.T) {
	s := newRawServer(t, (*talk).stay)
	c, err := dialCamera(t.Context(), strings.Replace(s.url(), "rtsp:", "rtsps:", 1), "", badTiming(), &atomic.Bool{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if _, _, err := c.describe(t.Context()); !errors.Is(err, errSetupTime) {
		t.Errorf("%v", err)
	}
}

// A camera with TLS cannot lead its viewers, and the password, out of it.
func TestTLSIsNotLeft(t *testing.T) {
	var told atomic.Bool
	plain := newRawServer(t, func(k *talk) {
		b, _ := k.in.ReadByte()
		told.Store(b != 22) // the record of a handshake (RFC 8446 section 5.1)
	})
	config := selfSigned(t)
	secured := newRawServer(t, func(k *talk) {
		conn := tls.Server(k.Conn, config)
		inner := &talk{k.rawServer, conn, bufio.NewReader(conn)}
		for {
			method, cseq, _ := inner.next()
			switch method {
			case "OPTIONS":
				inner.reply(cseq, "200 OK", "", "")
			case "DESCRIBE":
				inner.reply(cseq, "302 Found", "Location: rtsp://"+plain.ln.Addr().String()+"/x\r\n", "")
			default:
				return
			}
		}
	})
	_, err := Describe(t.Context(), strings.Replace(secured.url(), "rtsp:", "rtsps:", 1), nil)
	if err == nil || plain.dials.Load() != 1 || told.Load() {
		t.Errorf("%v; %d dials, in the clear: %v", err, plain.dials.Load(), told.Load())
	}
}
