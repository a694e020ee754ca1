package devices

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
)

// NodeKey loads the node's P-256 key, or makes and durably stores one at the first
// start. The key never leaves the store.
func NodeKey(s *Store) (*ecdsa.PrivateKey, error) {
	var der []byte
	if err := s.View(func(tx Tx) error { der = tx.Get(BucketNode, "key"); return nil }); err != nil {
		return nil, err
	}
	if der == nil {
		return makeNodeKey(s)
	}
	key, err := x509.ParseECPrivateKey(der)
	if err != nil || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("the stored node key is damaged (%w); restore the data folder, or remove it and let the device join again", err)
	}
	return key, nil
}

func makeNodeKey(s *Store) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := s.Update("node.key", func(tx Tx) error { return tx.Put(BucketNode, "key", der) }); err != nil {
		return nil, err
	}
	return key, nil
}
