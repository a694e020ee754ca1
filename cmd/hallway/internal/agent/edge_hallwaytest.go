//go:build hallwaytest

package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/sessions/edge"
)

// testDoor stands for the HTTPS server in a test build: it believes whoever says which phone it
// is. HALLWAY_TEST_DOOR is its address, HALLWAY_TEST_PAGES the folder that it shows.
func (a *Agent) testDoor(ctx context.Context) error {
	addr := os.Getenv("HALLWAY_TEST_DOOR")
	if addr == "" {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(os.Getenv("HALLWAY_TEST_PAGES"))))
	phone := func(r *http.Request) edge.Phone {
		id, _ := devices.ParseNodeID(r.FormValue("phone"))
		return edge.Phone{ID: id, Person: r.FormValue("person")}
	}
	mux.HandleFunc("/sip", func(w http.ResponseWriter, r *http.Request) { a.edge.Serve(ctx, phone(r), w, r) })
	mux.HandleFunc("POST /pair", func(w http.ResponseWriter, r *http.Request) {
		p := phone(r)
		slug, phones := "", []devices.NodeID(nil)
		if person, ok := a.roster.Roster().Persons[p.Person]; ok {
			slug, phones = person.Slug, person.Nodes
		}
		if err := a.roster.SetPerson(a.key, slug, r.FormValue("name"), devices.RoleDevice, append(phones, p.ID)); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
		a.settle()
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}}}
	// What ships has no HTTP/2, but net/http would offer it to browsers all the same.
	srv.Protocols = &http.Protocols{}
	srv.Protocols.SetHTTP1(true)
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.ServeTLS(ln, "", ""); err != http.ErrServerClosed {
		return err
	}
	return nil
}
