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
	"github.com/hallway-home/hallway/devices/trust"
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

// The key of the authority goes to owners alone; a certificate goes to every member, and to nobody else.
func TestTheAuthorityIsForOwners(t *testing.T) {
	store, err := devices.OpenStore(t.TempDir(), devices.StoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	a := &Agent{log: slog.New(slog.DiscardHandler), store: store}
	if a.key, err = devices.NodeKey(store); err != nil {
		t.Fatal(err)
	}
	a.self = devices.NodeIDOf(&a.key.PublicKey)
	if a.roster, err = trust.OpenLog(store); err != nil {
		t.Fatal(err)
	}
	if _, err := a.roster.Create(a.key, trust.CreateParams{HomeName: "Home", Name: "TV"}); err != nil {
		t.Fatal(err)
	}
	ids := map[devices.Role]devices.Device{"": {Node: devices.NodeID{9}}}
	for _, role := range []devices.Role{devices.RoleOwner, devices.RoleDevice} {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		m, err := a.roster.Admit(a.key, trust.Candidate{Key: devices.CompressedKey(&k.PublicKey), Name: string(role), Role: role})
		if err != nil {
			t.Fatal(err)
		}
		ids[role] = devices.Device{Node: m.Node, Slug: m.Slug}
	}
	if _, err := a.answerWeb(ids[devices.RoleOwner], webQuestion{Owner: true}); err == nil {
		t.Error("an authority was given that does not exist")
	}
	if err := a.makeCA(a.roster.Roster()); err != nil {
		t.Fatal(err)
	}
	leaf, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	q := webQuestion{Leaf: devices.CompressedKey(&leaf.PublicKey)}
	for role, d := range ids {
		_, err := a.answerWeb(d, webQuestion{Owner: true})
		if (err == nil) != (role == devices.RoleOwner) {
			t.Errorf("the key for %q: %v", role, err)
		}
		r := a.roster.Roster()
		w, err := a.answerWeb(d, q)
		if (err == nil) != (role != "") {
			t.Errorf("a certificate for %q: %v", role, err)
		}
		if err == nil {
			if _, err := webca.Check(r.Home, r.WebCA, w.CA, w.Leaf, &leaf.PublicKey); err != nil || w.Key != nil {
				t.Errorf("%q: %v", role, err)
			}
		}
	}
	if _, err := a.RenewTrust(); err != nil {
		t.Fatal(err)
	}
	if ca := a.webCA(); webca.Sum(ca.Cert.Raw) != a.roster.Roster().WebCA {
		t.Error("after a renewal the roster names another authority")
	}
}
