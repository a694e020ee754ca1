package mdns

import (
	"bytes"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/hallway-home/hallway/discovery/multicast"
)

const (
	// ttlHost and ttlOther are the recommended TTLs in seconds (RFC 6762 section 10).
	ttlHost, ttlOther = 120, 4500
	// flush marks a record as the only truth about its name (section 10.2); in a
	// question the same bit asks for a unicast answer (section 5.4).
	flush = 1 << 15
	// allTypes is the name under which service types are listed (RFC 6763 section 9).
	allTypes = "_services._dns-sd._udp.local."
	// maxAddrs bounds the addresses announced for one interface: they must fit one packet.
	maxAddrs = 8
)

func header(name string, t uint16, class uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: t, Class: class, Ttl: ttl}
}

func (r *Registration) typeName() string { return r.svc.Type + ".local." }
func (r *Registration) fullName() string { return escape(r.svc.Instance) + "." + r.typeName() }
func (r *Registration) hostName() string { return dns.Fqdn(r.svc.Host) }

func (r *Registration) srv() dns.RR {
	return &dns.SRV{Hdr: header(r.fullName(), dns.TypeSRV, dns.ClassINET|flush, ttlHost), Port: r.svc.Port, Target: r.hostName()}
}

func (r *Registration) txt() dns.RR {
	text := r.svc.Text
	if len(text) == 0 {
		text = []string{""} // RFC 6763 section 6.1: one empty string
	}
	return &dns.TXT{Hdr: header(r.fullName(), dns.TypeTXT, dns.ClassINET|flush, ttlOther), Txt: escapeText(text)}
}

// shared are the records that others may hold too.
func (r *Registration) shared(l multicast.Link) []dns.RR {
	if r.hostOnly {
		return r.addrs(l)
	}
	ptr := func(name, to string) dns.RR {
		return &dns.PTR{Hdr: header(name, dns.TypePTR, dns.ClassINET, ttlOther), Ptr: to}
	}
	out := []dns.RR{ptr(r.typeName(), r.fullName())}
	for _, s := range r.svc.Subtypes {
		out = append(out, ptr(s+"._sub."+r.typeName(), r.fullName()))
	}
	return append(out, ptr(allTypes, r.typeName()))
}

// unique are the records that only this host may hold, with the addresses of one link.
func (r *Registration) unique(l multicast.Link) []dns.RR {
	if r.hostOnly {
		return nil
	}
	return append([]dns.RR{r.srv(), r.txt()}, r.addrs(l)...)
}

// addrs are the host's address records on one link: the addresses of that interface only.
func (r *Registration) addrs(l multicast.Link) []dns.RR {
	var out []dns.RR
	class := uint16(dns.ClassINET | flush)
	if r.hostOnly {
		class = dns.ClassINET
	}
	for _, p := range l.Addrs {
		a := p.Addr()
		switch {
		case a.IsLoopback() && !l.Loopback || len(out) == maxAddrs:
		case a.Is4():
			out = append(out, &dns.A{Hdr: header(r.hostName(), dns.TypeA, class, ttlHost), A: a.AsSlice()})
		default:
			out = append(out, &dns.AAAA{Hdr: header(r.hostName(), dns.TypeAAAA, class, ttlHost), AAAA: a.AsSlice()})
		}
	}
	return out
}

// nothingElse says which types a unique name has, so that an asker need not wait for
// one that it does not have (RFC 6762 section 6.1).
func nothingElse(name string, types ...uint16) dns.RR {
	slices.Sort(types)
	return &dns.NSEC{
		Hdr:        header(name, dns.TypeNSEC, dns.ClassINET|flush, ttlHost),
		NextDomain: name, TypeBitMap: slices.Compact(types),
	}
}

// recordID is the identity of a record: everything but TTL and the cache-flush bit.
type recordID struct {
	name string
	kind uint16
	data string
}

func identity(rr dns.RR) recordID {
	h := rr.Header()
	id := recordID{name: lower(h.Name), kind: h.Rrtype}
	switch x := rr.(type) {
	case *dns.PTR:
		id.data = lower(x.Ptr)
	case *dns.SRV:
		id.data = strconv.Itoa(int(x.Port)) + " " + lower(x.Target)
	case *dns.TXT:
		id.data = strings.Join(x.Txt, "\x00")
	case *dns.A:
		id.data = string(x.A.To4())
	case *dns.AAAA:
		id.data = string(x.AAAA)
	default:
		id.data = strings.TrimPrefix(rr.String(), h.String())
	}
	return id
}

// rrAddr is the address in an A or AAAA record.
func rrAddr(rr dns.RR) (netip.Addr, bool) {
	switch x := rr.(type) {
	case *dns.A:
		a, ok := netip.AddrFromSlice(x.A)
		return a.Unmap(), ok
	case *dns.AAAA:
		a, ok := netip.AddrFromSlice(x.AAAA)
		return a, ok && !a.Is4In6()
	}
	return netip.Addr{}, false
}

// compareClaims decides between two hosts that probe for one name at the same time: the
// later set of records in this order wins (RFC 6762 section 8.2). It is a pure function.
func compareClaims(ours, theirs []dns.RR) int {
	return slices.CompareFunc(sortedClaims(ours), sortedClaims(theirs), claim.compare)
}

type claim struct {
	class, kind uint16
	data        []byte
}

func (c claim) compare(o claim) int {
	if d := int(c.class) - int(o.class); d != 0 {
		return d
	}
	if d := int(c.kind) - int(o.kind); d != 0 {
		return d
	}
	return bytes.Compare(c.data, o.data)
}

func sortedClaims(rrs []dns.RR) []claim {
	var out []claim
	for _, rr := range rrs {
		h := rr.Header()
		buf := make([]byte, dns.Len(rr)+1)
		end, err := dns.PackRR(rr, buf, 0, nil, false)
		if err != nil {
			continue
		}
		nameLen, err := dns.PackDomainName(h.Name, make([]byte, len(h.Name)+2), 0, nil, false)
		if err != nil || nameLen+10 > end {
			continue
		}
		out = append(out, claim{h.Class &^ flush, h.Rrtype, buf[nameLen+10 : end]}) // type, class, TTL and length are 10 bytes
	}
	slices.SortFunc(out, claim.compare)
	return out
}
