package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// selfSigned writes a certificate as cameras make them for themselves, and its key.
func selfSigned(t testing.TB) (flags []string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	dir := t.TempDir()
	files := []string{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	must(t, os.WriteFile(files[0], pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600))
	must(t, os.WriteFile(files[1], pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	return []string{"-cert", files[0], "-key", files[1]}
}

// A camera with RTSP over TLS: its certificate is shown when it is adopted and kept over a
// restart; whoever answers there with another one is refused, in words that say what to do,
// and adopting it again takes the new one.
func TestA18_CameraWithTLS(t *testing.T) {
	l := newLab(t)
	cam := newCamera(t, l.MustHost(t, "Camera"))
	cam.stop()
	cam.scheme = "rtsps"
	own, other := selfSigned(t), selfSigned(t)
	cam.start(own...)
	tv := newNode(t, l, "TV", "tv", "Living room").start().found()
	panel := newNode(t, l, "Panel", "panel", "Hall")
	tv.invite(panel)
	adopt := func() (certificate string) {
		t.Helper()
		return ask[struct{ Certificate string }](tv, "adopt", cam.url(strings.ReplaceAll(cameraAccount, "/", "%2F")), "--name", "Front door").Certificate
	}
	first := adopt()
	if len(first) != 39 {
		t.Errorf("the certificate is shown as %q", first)
	}
	tv.stop()
	tv.start()
	see := func() {
		t.Helper()
		panel.eventually(10*time.Second, "the camera is reachable", func() bool { return panel.adopted("front-door") == "reachable" })
		c := ask[call](panel, "call", "front-door", "--detach")
		panel.eventually(8*time.Second, "it sees and hears", flows(panel, c.ID))
		panel.run("hangup", c.ID)
	}
	see()
	cam.stop()
	cam.start(other...)
	if out, exit := panel.try("call", "front-door", "--for", "20s"); exit == 0 || !strings.Contains(out, "another certificate") || !strings.Contains(out, "adopt it again") || strings.Contains(out, first) {
		t.Errorf("another certificate: exit %d: %s", exit, out)
	}
	if second := adopt(); second == first {
		t.Error("the same certificate is shown for another one")
	}
	see()
}
