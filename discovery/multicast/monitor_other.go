//go:build !linux

package multicast

import (
	"errors"
	"net"
	"net/netip"
)

// openEvents: the monitor looks once a second here.
func openEvents() (events, error) { return nil, errors.ErrUnsupported }

func listInterfaces() ([]Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []Interface
	for _, i := range all {
		x := Interface{Index: i.Index, Name: i.Name, Flags: i.Flags}
		addrs, _ := i.Addrs() // an interface that went meanwhile has none
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				x.Addrs = append(x.Addrs, p)
			}
		}
		out = append(out, x)
	}
	return out, nil
}
