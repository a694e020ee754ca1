// Package push wakes a phone whose page is closed, by the push service of its browser's maker (RFC 8030). A push is
// empty: the service learns that a phone of a home is called, not whose, by whom, or what for.
package push

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/devices/trust"
)

const (
	// patience with a service; a call waits for it.
	patience = 8 * time.Second
	// ttl in seconds (RFC 8030 section 5.2): a phone that is off is not told later of a call that is over.
	ttl = "30"
	// signedFor is how long a signature holds; a service takes at most 24 h (RFC 8292 section 2).
	signedFor = time.Hour
	// contact is whom an operator of a service may ask (RFC 8292 section 2.1); some want one.
	contact = "https://github.com/hallway-home/hallway"
	// maxAnswer bounds what is read of a service's answer, so that its connection can be used again.
	maxAnswer = 4096
)

// Errors of Send.
var (
	// ErrHost: nothing is sent to a host that is not on the list.
	ErrHost = errors.New("this device tells no such push service; `push` in its configuration lists those it does")
	// ErrEnded: the phone has ended the subscription, or its browser has.
	ErrEnded = errors.New("the push service knows the phone no more; open the app there once")
)

// Services are the hosts of the push services of the browsers that there are, each with all below it.
func Services() []string {
	return []string{"fcm.googleapis.com", "updates.push.services.mozilla.com", "notify.windows.com", "web.push.apple.com"}
}

// Sender tells push services. It is safe for concurrent use.
type Sender struct {
	services []string
	now      func() time.Time
	client   *http.Client
}

// NewSender makes one that talks to these services alone. now is the time by which certificates and signatures are
// judged: the device's own clock may be wrong.
func NewSender(services []string, now func() time.Time) *Sender {
	return &Sender{services: services, now: now, client: &http.Client{
		Timeout: patience,
		// A redirect could lead anywhere, into the home too.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:           http.ProxyFromEnvironment,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, Time: now},
			MaxIdleConns:    1, IdleConnTimeout: time.Minute, // an idle device holds nothing open
		},
	}}
}

// Send tells the service of a phone once. It blocks for at most 8 s. Errors: ErrHost, ErrEnded, and what went wrong on
// the way, in which case another device may have more luck.
func (s *Sender) Send(ctx context.Context, w records.Wake) error {
	u, err := url.Parse(w.Endpoint)
	if err != nil || u.Scheme != "https" || !s.serves(u.Hostname()) { // check: push service on the list
		return ErrHost
	}
	key, err := w.Signer()
	if err != nil {
		return err
	}
	auth, err := vapid(key, u, s.now())
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", auth)
	req.Header.Set("TTL", ttl)
	req.Header.Set("Urgency", "high")
	req.Header.Set("Topic", "call") // a newer one takes the place of one that waits
	res, err := s.client.Do(req)
	if err != nil {
		if e := (&url.Error{}); errors.As(err, &e) { // its URL is a secret of the phone: logs do not show it
			err = e.Err
		}
		return fmt.Errorf("the push service %s cannot be reached: %w", u.Hostname(), err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer)) // of no interest
	switch {
	case res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusGone:
		return ErrEnded
	case res.StatusCode/100 != 2:
		return fmt.Errorf("the push service %s answered %s", u.Hostname(), res.Status)
	}
	return nil
}

func (s *Sender) serves(host string) bool {
	return slices.ContainsFunc(s.services, func(x string) bool { return host == x || strings.HasSuffix(host, "."+x) })
}

// vapid is how a push service knows the sender (RFC 8292 section 3): a JWT (RFC 7519) signed by the key to which the
// subscription is bound.
func vapid(key *ecdsa.PrivateKey, service *url.URL, now time.Time) (string, error) {
	claims, err := json.Marshal(map[string]any{"aud": service.Scheme + "://" + service.Host, "exp": now.Add(signedFor).Unix(), "sub": contact})
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"JWT","alg":"ES256"}`)) + "." + base64.RawURLEncoding.EncodeToString(claims)
	sig, err := trust.SignRaw(key, []byte(text)) // raw r||s over SHA-256 is ES256 (RFC 7518 section 3.4)
	if err != nil {
		return "", err
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		return "", err
	}
	return "vapid t=" + text + "." + base64.RawURLEncoding.EncodeToString(sig) + ", k=" + base64.RawURLEncoding.EncodeToString(public), nil
}
