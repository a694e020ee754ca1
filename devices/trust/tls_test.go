package trust

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
)

// shake runs a handshake between two configurations; clientErr is what the client sees
// at its first read (in TLS 1.3 a refusal comes after the client is done).
func shake(t *testing.T, client, server *tls.Config) (state tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	cp, sp := net.Pipe()
	defer func() { _ = cp.Close() }()
	done := make(chan error, 1)
	s := tls.Server(sp, server)
	go func() {
		err := s.HandshakeContext(ctx)
		if err == nil {
			_, err = s.Write([]byte{1})
		}
		_ = sp.Close()
		done <- err
	}()
	c := tls.Client(cp, client)
	clientErr = c.HandshakeContext(ctx)
	if clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	_ = cp.Close()
	serverErr = <-done
	return s.ConnectionState(), clientErr, serverErr
}

func conf(t *testing.T, k *ecdsa.PrivateKey, r *devices.Roster, alpn ...string) *tls.Config {
	t.Helper()
	c, err := MemberTLS(k, func() *devices.Roster { return r }, alpn...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMembersRecogniseEachOther(t *testing.T) {
	l, owner := home(t)
	dev, m := admit(t, l, owner, "Panel", "")
	r := l.Roster()
	client, server := conf(t, dev, r, ALPNOverlay), conf(t, owner, r, ALPNOverlay, ALPNSIP, ALPNPair)
	client.Time = func() time.Time { return time.Unix(3, 0) } // a clock without battery
	var hello *tls.ClientHelloInfo
	server.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) { hello = h; return nil, nil }
	state, cerr, serr := shake(t, client, server)
	if err := errors.Join(cerr, serr); err != nil {
		t.Fatal(err)
	}
	if id, _, err := PeerID(state); err != nil || id != m.Node || state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != ALPNOverlay {
		t.Errorf("%v %v %+v", id, err, state)
	}
	if hello.ServerName != "" {
		t.Errorf("the name %q is on the wire", hello.ServerName)
	}
	if err := l.Remove(owner, m.Slug); err != nil {
		t.Fatal(err)
	}
	if _, cerr, serr = shake(t, client, conf(t, owner, l.Roster(), ALPNOverlay)); !errors.Is(serr, ErrStranger) || cerr == nil {
		t.Errorf("a removed device: %v, %v", cerr, serr)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	l, owner := home(t)
	r := l.Roster()
	stranger := newKey(t)
	all := []string{ALPNOverlay, ALPNSIP, ALPNPair}
	server := func() *tls.Config { return conf(t, owner, r, all...) }
	for what, c := range map[string]struct {
		client *tls.Config
		want   error
	}{
		"stranger on the overlay": {conf(t, stranger, nil, ALPNOverlay), ErrStranger},
		"stranger on SIP":         {conf(t, stranger, nil, ALPNSIP), ErrStranger},
		"member without protocol": {conf(t, owner, r), ErrNoALPN},
	} {
		c.client.VerifyConnection = nil // whatever the stranger thinks of us
		if _, cerr, serr := shake(t, c.client, server()); !errors.Is(serr, c.want) || cerr == nil {
			t.Errorf("%s: %v, %v", what, cerr, serr)
		}
	}
	old := conf(t, owner, r, ALPNSIP)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, _, serr := shake(t, old, server()); serr == nil {
		t.Error("TLS 1.2 is spoken")
	}
	naked := conf(t, owner, r, ALPNSIP)
	naked.Certificates = nil
	if _, _, serr := shake(t, naked, server()); serr == nil {
		t.Error("a peer without a key was let in")
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, serr := shake(t, conf(t, p384, nil, ALPNPair), server()); !errors.Is(serr, ErrPeerKey) {
		t.Errorf("a key of another kind: %v", serr)
	}
	if _, cerr, serr := shake(t, conf(t, stranger, nil, ALPNPair), server()); cerr != nil || serr != nil {
		t.Errorf("a stranger cannot pair: %v, %v", cerr, serr)
	}
	if _, cerr, _ := shake(t, conf(t, owner, r, ALPNSIP), conf(t, stranger, r, ALPNSIP)); !errors.Is(cerr, ErrStranger) {
		t.Errorf("a look-alike was dialled: %v", cerr)
	}
}

func TestCertificateHoldsNothingButTheKey(t *testing.T) {
	k := newKey(t)
	c, err := NodeCertificate(k)
	if err != nil {
		t.Fatal(err)
	}
	x, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if x.Subject.String() != "" || x.Issuer.String() != "" || len(x.DNSNames)+len(x.IPAddresses)+len(x.Extensions) != 0 || x.SerialNumber.Int64() != 1 {
		t.Errorf("%+v", x)
	}
	if conf, err := MemberTLS(k, nil); err != nil || !conf.SessionTicketsDisabled || conf.ClientSessionCache != nil {
		t.Errorf("sessions can be resumed, past the roster: %v", err)
	}
}

func TestHomeTag(t *testing.T) {
	a, b := HomeTag([]byte{1}, devices.NodeID{1}), HomeTag([]byte{2}, devices.NodeID{1})
	if len(a) != 16 || a == b || a == HomeTag([]byte{1}, devices.NodeID{2}) {
		t.Error(a, b)
	}
}
