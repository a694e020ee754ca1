package rtsp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/bluenviron/gortsplib/v4/pkg/base"
	"github.com/bluenviron/gortsplib/v4/pkg/liberrors"
)

// maxWords bounds what is shown of a camera's own text.
const maxWords = 120

// words says what went wrong so that a person knows what to do. Nothing in it holds the
// password; what the camera said itself is bounded and printable.
func (c *conn) words(err error) error {
	where := c.url.Host
	var status liberrors.ErrClientBadStatusCode
	var dns *net.DNSError
	var record tls.RecordHeaderError
	switch {
	case err == nil:
		return errors.New("the camera ended the stream")
	case c.stranger():
		return fmt.Errorf("%w (%s): adopt it again if you changed it, else another device answers there", ErrCertificate, Fingerprint(*c.seen.Load()))
	case errors.As(err, &record):
		return fmt.Errorf("%s answers, but not with TLS as rtsps:// wants it; is the port right? (usual: 322)", where)
	case c.late.Load():
		return fmt.Errorf("%w (%s)", errSetupTime, where)
	case c.other.Load(), errors.Is(err, errRedirect):
		return errRedirect
	case errors.As(err, &status):
		return c.statusWords(status)
	case errors.As(err, &dns):
		return fmt.Errorf("the name %s is not known here; use the camera's IP address", c.url.Hostname())
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens at %s; is RTSP switched on in the camera, and the port right? (usual: 554)", where)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), isDialTimeout(err):
		return fmt.Errorf("%s does not answer; is the camera on, and the address right?", where)
	case errors.As(err, &liberrors.ErrClientRequestTimedOut{}):
		return fmt.Errorf("%w (%s)", errSetupTime, where)
	case errors.As(err, &liberrors.ErrClientTCPTimeout{}), errors.As(err, &liberrors.ErrClientUDPTimeout{}):
		return errors.New("the camera stopped sending")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		if !c.spoke.Load() {
			return fmt.Errorf("%s takes the connection but gives no answer; does it speak RTSP?", where)
		}
		return errors.New("the camera closed the connection")
	case errors.Is(err, context.Canceled), errors.As(err, &liberrors.ErrClientTerminated{}):
		return err
	}
	return fmt.Errorf("%s answers, but not as RTSP wants it: %s", where, bounded(err.Error()))
}

func isDialTimeout(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" && (op.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded))
}

func (c *conn) statusWords(s liberrors.ErrClientBadStatusCode) error {
	switch s.Code {
	case base.StatusUnauthorized, base.StatusForbidden:
		if c.url.User == nil {
			return ErrAsks
		}
		return ErrPassword
	case base.StatusNotFound:
		return ErrPath
	case base.StatusNotEnoughBandwidth, base.StatusServiceUnavailable:
		return errors.New("the camera has no connection left for another viewer")
	}
	return fmt.Errorf("the camera answered with RTSP status %d %s", s.Code, bounded(s.Message))
}

// bounded is a text from the network, fit for a log and a terminal.
func bounded(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return -1
		}
		return r
	}, s[:min(len(s), 4*maxWords)])
	return s[:min(len(s), maxWords)]
}
