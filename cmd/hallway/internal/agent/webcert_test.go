package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hallway-home/hallway/cmd/hallway/internal/config"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust/webca"
)

// pemFiles writes a certificate of a fresh authority and its key.
func pemFiles(t *testing.T, cert, key string) []byte {
	t.Helper()
	home := devices.HomeID{7}
	ca, err := webca.New(home)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Leaf(home, &k.PublicKey, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	for file, b := range map[string][]byte{cert: webca.PEM(leaf), key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return leaf
}

func TestOwnCertificateFilesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	a := &Agent{log: slog.New(slog.DiscardHandler)}
	a.cfg.Web = config.Web{Cert: filepath.Join(dir, "c.pem"), Key: filepath.Join(dir, "k.pem")}
	if err := a.ownFiles(); err == nil || a.web.shown.Load() != nil {
		t.Fatal("files that are not there were taken")
	}
	first := pemFiles(t, a.cfg.Web.Cert, a.cfg.Web.Key)
	if err := a.ownFiles(); err != nil || string(a.web.shown.Load().Certificate[0]) != string(first) {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.cfg.Web.Cert, []byte("half a fi"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.ownFiles(); err == nil || string(a.web.shown.Load().Certificate[0]) != string(first) {
		t.Fatal("a broken file replaced the good one")
	}
	second := pemFiles(t, a.cfg.Web.Cert, a.cfg.Web.Key)
	if err := a.ownFiles(); err != nil || string(a.web.shown.Load().Certificate[0]) != string(second) {
		t.Fatal("the new files are not shown: ", err)
	}
}
