// A push service (RFC 8030) for tests: it takes what is signed as RFC 8292 says and writes a line of JSON for each
// request. -ended makes it answer as one whose subscription has ended.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hallway-home/hallway/devices/trust"
)

// pushed is what a line says.
type pushed struct {
	Path  string `json:"path"`
	From  string `json:"from"` // address
	Key   string `json:"key"`  // the subscription's, base64url
	Body  int    `json:"body"` // bytes
	Fault string `json:"fault,omitempty"`
}

func main() {
	listen := flag.String("listen", ":443", "address")
	cert := flag.String("cert", "", "PEM file")
	key := flag.String("key", "", "PEM file")
	ended := flag.Bool("ended", false, "answer 410 to all")
	flag.Parse()
	out := json.NewEncoder(os.Stdout)
	srv := &http.Server{Addr: *listen, ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(io.LimitReader(r.Body, 4096))
		line := pushed{Path: r.URL.Path, From: r.RemoteAddr, Body: len(b)}
		status := http.StatusCreated
		var err error
		if line.Key, err = check(r); err != nil {
			line.Fault, status = err.Error(), http.StatusForbidden
		} else if *ended {
			status = http.StatusGone
		}
		_ = out.Encode(line) // whoever reads has ended
		w.WriteHeader(status)
	})}
	log.Fatal(srv.ListenAndServeTLS(*cert, *key))
}

// check is what a service asks of a sender, and gives the key that it showed.
func check(r *http.Request) (string, error) {
	if n, err := strconv.Atoi(r.Header.Get("TTL")); r.Method != http.MethodPost || err != nil || n < 0 {
		return "", errors.New("no push: " + r.Method + " with TTL " + r.Header.Get("TTL"))
	}
	token, public, ok := strings.Cut(strings.TrimPrefix(r.Header.Get("Authorization"), "vapid t="), ", k=")
	text, signature, signed := cutLast(token, ".")
	raw, err1 := base64.RawURLEncoding.DecodeString(public)
	sig, err2 := base64.RawURLEncoding.DecodeString(signature)
	if !ok || !signed || errors.Join(err1, err2) != nil {
		return "", errors.New("no VAPID: " + r.Header.Get("Authorization"))
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), raw)
	if err != nil || !trust.VerifyRaw(pub, []byte(text), sig) {
		return "", errors.New("the signature is wrong")
	}
	_, payload, _ := strings.Cut(text, ".")
	var claims struct {
		Aud string
		Exp int64
		Sub string
	}
	if raw, err = base64.RawURLEncoding.DecodeString(payload); err == nil {
		err = json.Unmarshal(raw, &claims)
	}
	left := time.Until(time.Unix(claims.Exp, 0))
	if err != nil || claims.Aud != "https://"+r.Host || claims.Sub == "" || left < 0 || left > 24*time.Hour {
		return "", errors.New("the claims are wrong: " + string(raw))
	}
	return public, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
