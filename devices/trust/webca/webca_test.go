package webca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hallway-home/hallway/devices"
)

var home = devices.HomeID{1, 2, 3, 4, 5}

func newCA(t *testing.T) (*CA, *ecdsa.PrivateKey) {
	t.Helper()
	ca, err := New(home)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return ca, key
}

func TestALeafIsGoodForTheOriginAndShortEnough(t *testing.T) {
	ca, key := newCA(t)
	now := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	leaf, err := ca.Leaf(home, &key.PublicKey, now)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := Check(home, Sum(ca.Cert.Raw), ca.Cert.Raw, leaf, &key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if life := cert.NotAfter.Sub(cert.NotBefore); life > 397*24*time.Hour {
		t.Errorf("it lives %v", life)
	}
	for at, want := range map[time.Duration]bool{0: false, 200 * 24 * time.Hour: false, 310 * 24 * time.Hour: true, 500 * 24 * time.Hour: true, -30 * 24 * time.Hour: true} {
		if Renew(cert, now.Add(at)) != want {
			t.Errorf("after %v: renew is %v", at, !want)
		}
	}
	if _, err := Check(home, [32]byte{1}, ca.Cert.Raw, leaf, &key.PublicKey); !errors.Is(err, ErrOther) {
		t.Errorf("another authority: %v", err)
	}
	_, other := newCA(t)
	if _, err := Check(home, Sum(ca.Cert.Raw), ca.Cert.Raw, leaf, &other.PublicKey); !errors.Is(err, ErrLeaf) {
		t.Errorf("another key: %v", err)
	}
	if _, err := Check(devices.HomeID{9}, Sum(ca.Cert.Raw), ca.Cert.Raw, leaf, &key.PublicKey); err == nil {
		t.Error("a leaf of another home's name was taken")
	}
}

func TestAnOwnerWhoseClockSays1970IssuesAUsableLeaf(t *testing.T) {
	ca, key := newCA(t)
	leaf, err := ca.Leaf(home, &key.PublicKey, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(leaf)
	if err != nil || cert.NotAfter.Before(built().AddDate(1, 0, 0)) || cert.NotBefore.After(built()) {
		t.Errorf("%v to %v, %v", cert.NotBefore, cert.NotAfter, err)
	}
}

// What a thief of the CA's key could make is good for the one name only.
func TestTheAuthorityIsConstrainedToTheOrigin(t *testing.T) {
	ca, key := newCA(t)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	now := time.Now()
	for name, want := range map[string]bool{home.AppHost(): true, "localhost": true, "bank.example": false, "other.local": false, "192.0.2.1": false} {
		tmpl := &x509.Certificate{SerialNumber: serial(), NotBefore: now, NotAfter: now.Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		if ip := net.ParseIP(name); ip != nil {
			tmpl.IPAddresses = []net.IP{ip}
		} else {
			tmpl.DNSNames = []string{name}
		}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.Cert, &key.PublicKey, ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = cert.Verify(x509.VerifyOptions{DNSName: name, Roots: pool, CurrentTime: now}); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(ca.Cert.Raw, key); !errors.Is(err, ErrOther) {
		t.Errorf("a foreign key was taken: %v", err)
	}
}

func TestWordsSayTheWholePrefix(t *testing.T) {
	if got := Words([32]byte{0x7f, 0x00, 0x00, 0x01, 0x3f, 0x54, 0xdc, 0xc1, 0xff, 0xff}); got != "lusab-babad-gutih-tugad-zuzuz" { // arXiv:0901.4016
		t.Error(got)
	}
	if Words([32]byte{1}) == Words([32]byte{2}) {
		t.Error("two hashes have the same words")
	}
}

func TestTheProfileIsXMLWithTheCertificate(t *testing.T) {
	ca, _ := newCA(t)
	p := Profile(home, `A & "B" <home>`, ca.Cert.Raw)
	d := xml.NewDecoder(bytes.NewReader(p))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(string(p), strings.TrimSpace(base64Lines(ca.Cert.Raw))) || !strings.Contains(string(p), "com.apple.security.root") {
		t.Error(string(p))
	}
}
