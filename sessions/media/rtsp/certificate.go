package rtsp

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"net"
	"net/url"
	"strings"

	"github.com/bluenviron/gortsplib/v4/pkg/base"
)

// tlsPort is that of rtsps:// (RFC 7826 section 4.2); the library has that of rtsp:// alone.
const tlsPort = "322"

func (c *conn) encrypted() bool { return c.url.Scheme == "rtsps" }

// hostOf is where an address leads, with the port.
func hostOf(u *base.URL) string {
	if u.Scheme == "rtsps" && (*url.URL)(u).Port() == "" {
		return net.JoinHostPort((*url.URL)(u).Hostname(), tlsPort)
	}
	return u.Host
}

// secure makes TLS of every connection to a camera whose address says so, wherever a redirect
// leads. It is not left to the library, whose handshake no deadline ends.
func (c *conn) secure(ctx context.Context, plain net.Conn) (net.Conn, error) {
	s := tls.Client(plain, &tls.Config{ServerName: c.url.Hostname(), InsecureSkipVerify: true, VerifyConnection: c.checkCertificate}) //nolint:gosec // no CA knows cameras; the pin does
	if err := s.HandshakeContext(ctx); err != nil {
		_ = plain.Close()
		return nil, err
	}
	return s, nil
}

// ledEncrypted keeps the library from making TLS of a redirect a second time.
func (c *conn) ledEncrypted(res *base.Response) {
	to := res.Header["Location"]
	if !c.encrypted() || len(to) != 1 {
		return
	}
	if u, err := base.ParseURL(to[0]); err == nil && u.Scheme == "rtsps" {
		u.Host, u.Scheme = hostOf(u), "rtsp"
		res.Header["Location"] = base.HeaderValue{u.String()}
	}
}

// checkCertificate takes any certificate at first, as nobody signs those of cameras, and then
// no other one. The password follows only after it.
func (c *conn) checkCertificate(s tls.ConnectionState) error {
	sum := sha256.Sum256(s.PeerCertificates[0].Raw)
	seen := hex.EncodeToString(sum[:])
	c.seen.Store(&seen)
	if c.stranger() { // check: certificate of a camera
		return ErrCertificate
	}
	return nil
}

// stranger reports whether the certificate was another one.
func (c *conn) stranger() bool {
	seen := c.seen.Load()
	return c.pin != "" && seen != nil && *seen != c.pin
}

// Fingerprint is a certificate's fingerprint as people compare it: the first half, in groups.
func Fingerprint(full string) string {
	var out []string
	for i := 0; i+4 <= min(len(full), 32); i += 4 {
		out = append(out, full[i:i+4])
	}
	return strings.Join(out, " ")
}
