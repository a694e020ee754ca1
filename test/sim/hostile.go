package sim

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/records"
	"github.com/hallway-home/hallway/devices/trust"
)

// forgeries is the number of means in forge.
const forgeries = 8

// visit is how long an attacker stays.
const visit = 2 * time.Second

// What an attacker says; the numbers are those of the wire.
const (
	frameHello   = 2
	frameEdits   = 3
	frameDigest  = 4
	frameRecords = 5
)

// forge lets the hostile member send a node what it must not believe, over a flow that
// its own key opens.
func (w *World) forge(target *node, means int) {
	h := w.nodes[w.prog.hostile()]
	victim := w.nodes[0]
	var home devices.HomeID
	var heads []trust.Hash
	for _, n := range w.nodes {
		if n.runs() {
			home, heads = n.log.Roster().Home, n.log.Heads()
		}
	}
	if len(heads) == 0 || target == h {
		return
	}
	said := func(writer *node, epoch, seq uint64, body string) records.Record {
		raw, _ := cbor.Marshal(body)
		return records.Record{Version: 1, Home: home, Subject: writer.id.String(), Kind: "kind1", Writer: writer.id, Epoch: epoch, Sequence: seq, Body: raw}
	}
	own := func(epoch, seq uint64) records.Signed { // it may say what it likes about itself
		body := w.fresh()
		w.model.publishes(h.id, "kind1", body, false)
		return seal(h.key, said(h, epoch, seq, body))
	}
	edit := func(signer *node, key *ecdsa.PrivateKey, e trust.Edit) []any {
		e.Version, e.Home, e.Parents, e.Signer = 1, home, heads[:min(len(heads), trust.MaxParents)], signer.id
		raw, sig := sign(key, e)
		return []any{trust.SignedEdit{Raw: raw, Sig: sig}}
	}
	stranger := poolKey(poolSize)
	var frames []frame
	switch means {
	case 0: // another's record, signed by the wrong key
		frames = []frame{{frameRecords, 5, []any{seal(h.key, said(victim, 9, 9, w.fresh()))}}}
	case 1: // another's record, made newer under its old signature
		if len(w.olds) > 0 {
			s := w.olds[rand.IntN(len(w.olds))]
			var r records.Record
			_ = decoding.Unmarshal(s.Raw, &r)
			r.Sequence += 1000
			raw, _ := canonical().Marshal(r)
			frames = []frame{{frameRecords, 5, []any{records.Signed{Raw: raw, Sig: s.Sig}}}}
		}
	case 2: // everything that was ever true, again
		var all []any
		for _, s := range w.olds {
			all = append(all, s)
		}
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		frames = []frame{{frameRecords, 5, all}}
	case 3: // two things under one number
		frames = []frame{{frameRecords, 5, []any{own(1, 1)}}, {frameRecords, 5, []any{own(1, 1)}}}
	case 4: // the highest numbers, of its own
		frames = []frame{{frameRecords, 5, []any{own(1<<63, 1<<63)}}}
	case 5: // an admission and a removal, signed by a device
		id := devices.CompressedKey(&stranger.PublicKey)
		frames = []frame{
			{frameEdits, 3, edit(h, h.key, trust.Edit{Op: trust.OpAdmit, Key: id, Role: devices.RoleOwner, Name: "Stranger"})},
			{frameEdits, 3, edit(h, h.key, trust.Edit{Op: trust.OpRemove, Node: victim.id, HomeKey: make([]byte, 32)})},
		}
	case 6: // the same in the first owner's name
		frames = []frame{{frameEdits, 3, edit(victim, h.key, trust.Edit{Op: trust.OpRemove, Node: target.id, HomeKey: make([]byte, 32)})}}
	default: // nonsense
		frames = []frame{{frameHello, 1, []any{[32]byte{1}}}, {frameDigest, 4, []any{map[int]any{1: "x/y/z", 2: uint64(1) << 63}}}, {77, 1, nil}, {frameRecords, 5, []any{"no record"}}}
	}
	addr := target.addr
	w.attacks.Go(func() {
		conn, err := visitTLS(h.host, h.key, addr)
		if err != nil {
			return
		}
		defer func() { _ = conn.NetConn().Close() }()
		for _, f := range frames {
			if _, err := conn.Write(f.bytes()); err != nil {
				return
			}
		}
		time.Sleep(visit)
	})
}

// knock lets keys that do not belong ask for a flow: it is a breach if one gets it.
func (w *World) knock(target *node) {
	if !target.runs() {
		return
	}
	keys := []*ecdsa.PrivateKey{poolKey(poolSize)}
	for _, n := range w.nodes {
		if target.log.Roster().Removed[n.id] {
			keys = append(keys, n.key)
		}
	}
	log, addr := target.log, target.addr
	host := w.nodes[w.prog.hostile()].host
	crash := target.crash
	for _, k := range keys {
		w.attacks.Go(func() {
			conn, err := visitTLS(host, k, addr)
			if err != nil {
				return
			}
			_ = conn.NetConn().Close()
			if target.crash != crash || log.Roster().Has(devices.NodeIDOf(&k.PublicKey)) {
				return // it started again meanwhile, maybe without its tail; or that removal was void
			}
			w.log.mu.Lock()
			defer w.log.mu.Unlock()
			w.breach = fmt.Errorf("node %d gave a flow to a key that does not belong", target.i)
		})
	}
}

// visitTLS opens an overlay flow as far as the verdict.
func visitTLS(from *Host, key *ecdsa.PrivateKey, to netip.AddrPort) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*visit)
	defer cancel()
	cert, err := trust.NodeCertificate(key)
	if err != nil {
		return nil, err
	}
	raw, err := from.Dial(ctx, to)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}, NextProtos: []string{trust.ALPNOverlay}, MinVersion: tls.VersionTLS13})
	err = conn.HandshakeContext(ctx)
	_ = conn.SetDeadline(time.Now().Add(visit))
	verdict := make([]byte, 1)
	if err == nil {
		_, err = conn.Read(verdict)
	}
	if err == nil && verdict[0] != 'y' {
		err = errors.New("refused")
	}
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

// frame is one message of the overlay: a kind and one list under a number.
type frame struct {
	kind  byte
	field int
	list  []any
}

func (f frame) bytes() []byte {
	body, _ := cbor.Marshal(map[int]any{f.field: f.list})
	out := binary.BigEndian.AppendUint32(nil, uint32(len(body)+1))
	return append(append(out, f.kind), body...)
}

func seal(key *ecdsa.PrivateKey, r records.Record) records.Signed {
	raw, sig := sign(key, r)
	return records.Signed{Raw: raw, Sig: sig}
}

func sign(key *ecdsa.PrivateKey, v any) (raw, sig []byte) {
	raw, _ = canonical().Marshal(v)
	sig, _ = trust.SignRaw(key, raw)
	return raw, sig
}

func canonical() cbor.EncMode {
	m, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // constant options
	}
	return m
}
