package push

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/devices/trust"
)

// service is a push service that answers with status and keeps what it was sent.
func service(t *testing.T, status int) (*httptest.Server, chan *http.Request) {
	t.Helper()
	got := make(chan *http.Request, 4)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b, _ := io.ReadAll(r.Body); len(b) != 0 {
			t.Errorf("the push carries %q", b)
		}
		got <- r
		w.Header().Set("Location", "https://"+r.Host+"/elsewhere")
		w.WriteHeader(status)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv, got
}

func sender(t *testing.T, srv *httptest.Server, now time.Time, services ...string) *Sender {
	t.Helper()
	s := NewSender(services, func() time.Time { return now })
	tr := s.client.Transport.(*http.Transport)
	tr.TLSClientConfig.RootCAs = x509.NewCertPool()
	tr.TLSClientConfig.RootCAs.AddCert(srv.Certificate())
	t.Cleanup(tr.CloseIdleConnections)
	return s
}

func subscription(t *testing.T, url string) (records.Wake, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return records.Wake{Endpoint: url, Key: secret}, key
}

// What a service gets is what RFC 8030 and RFC 8292 ask for, signed by the key of the subscription.
func TestSend(t *testing.T) {
	srv, got := service(t, http.StatusCreated)
	w, key := subscription(t, srv.URL+"/send/abc")
	now := time.Now().Truncate(time.Second)
	if err := sender(t, srv, now, "127.0.0.1").Send(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	r := <-got
	if r.Method != http.MethodPost || r.URL.Path != "/send/abc" || r.Header.Get("TTL") != "30" || r.Header.Get("Urgency") != "high" || r.Header.Get("Topic") != "call" || r.ContentLength != 0 {
		t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
	}
	token, public, ok := strings.Cut(strings.TrimPrefix(r.Header.Get("Authorization"), "vapid t="), ", k=")
	pub, err := base64.RawURLEncoding.DecodeString(public)
	if want, _ := key.PublicKey.Bytes(); !ok || err != nil || string(pub) != string(want) {
		t.Fatalf("%q", r.Header.Get("Authorization"))
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%q", token)
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !trust.VerifyRaw(&key.PublicKey, []byte(parts[0]+"."+parts[1]), sig) {
		t.Error("the signature is not that of the subscription's key")
	}
	var head, claims map[string]any
	for i, into := range []*map[string]any{&head, &claims} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || json.Unmarshal(raw, into) != nil {
			t.Fatalf("%q", parts[i])
		}
	}
	if head["alg"] != "ES256" || claims["aud"] != srv.URL || claims["sub"] != contact || claims["exp"] != float64(now.Add(time.Hour).Unix()) {
		t.Errorf("%v %v", head, claims)
	}
}

func TestSend_Refusals(t *testing.T) {
	for name, tc := range map[string]struct {
		status int
		want   error // nil: any, or none below 300
	}{
		"taken": {http.StatusCreated, nil}, "later": {http.StatusTooManyRequests, nil}, "broken": {http.StatusBadGateway, nil},
		"gone": {http.StatusGone, ErrEnded}, "unknown": {http.StatusNotFound, ErrEnded}, "moved": {http.StatusTemporaryRedirect, nil},
	} {
		srv, got := service(t, tc.status)
		w, _ := subscription(t, srv.URL+"/secret")
		err := sender(t, srv, time.Now(), "127.0.0.1").Send(t.Context(), w)
		if (err == nil) != (tc.status < 300) || tc.want != nil && !errors.Is(err, tc.want) || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
		if len(got) != 1 {
			t.Errorf("%s: the service was asked %d times", name, len(got))
		}
	}
}

// Nothing is sent to a host that the device's owner did not list, whatever a phone signed.
func TestSend_OnlyToTheList(t *testing.T) {
	srv, got := service(t, http.StatusCreated)
	plain := strings.Replace(srv.URL, "https", "http", 1)
	for _, tc := range []struct{ services, endpoint string }{
		{"", srv.URL}, {"push.example", srv.URL}, {"7.0.0.1", srv.URL}, {"127.0.0.1", plain}, {"127.0.0.1", "https://127.0.0.1@push.example/"},
	} {
		w, _ := subscription(t, tc.endpoint)
		if err := sender(t, srv, time.Now(), strings.Fields(tc.services)...).Send(t.Context(), w); !errors.Is(err, ErrHost) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
	s := NewSender(Services(), time.Now)
	for host, want := range map[string]bool{
		"fcm.googleapis.com": true, "wns2-par02p.notify.windows.com": true, "web.push.apple.com": true, "updates.push.services.mozilla.com": true,
		"evilfcm.googleapis.com": false, "fcm.googleapis.com.evil.example": false, "": false, "192.168.1.1": false, "googleapis.com": false,
	} {
		if s.serves(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
	if len(got) != 0 {
		t.Errorf("%d pushes arrived", len(got))
	}
}

// A service that cannot be reached is named, the phone's address at it is not.
func TestSend_Unreachable(t *testing.T) {
	srv, _ := service(t, http.StatusCreated)
	w, _ := subscription(t, srv.URL+"/secret")
	s := sender(t, srv, time.Now(), "127.0.0.1")
	srv.Close()
	err := s.Send(t.Context(), w)
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "127.0.0.1 cannot be reached") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Send(ctx, w); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
