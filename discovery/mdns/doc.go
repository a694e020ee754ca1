// Package mdns speaks Multicast DNS (RFC 6762) and DNS-SD (RFC 6763): it announces this
// node's services with probing, renaming, refresh and goodbye, browses service types
// continuously, reporting additions, updates and removals once, however many interfaces
// a thing is heard on, and looks up host names under .local.
//
// The whole of it: New and Engine.Run; Announce, for a Service under a name of its own, and
// ShareHost, for a host name that others hold as well, each give a Registration (Instance,
// Update, Close); Browse asks for types, and what it finds goes to Run's report;
// ResolveHost looks a name up. Names that are taken, interfaces that come and go, and the
// pace of questions and answers are the engine's own business.
//
// One goroutine (Engine.Run) owns all state; Announce, Browse, ResolveHost and the methods
// of a Registration hand it closures and may be called from anywhere. The network lies
// below multicast.Network, so that the state machines are tested over a LAN in memory with
// virtual time.
//
// It refuses packets from sources that are not on the link, records that nobody here asked
// for, addresses that lead off the LAN, and more packets, names or records than a home has:
// every bound is a constant with its reason.
//
// Messages are packed and parsed by github.com/miekg/dns (0.56 MB of the stripped program,
// measured). golang.org/x/net/dns/dnsmessage would be smaller, but refuses a whole message
// in which one label contains a dot, and instance names are free text ("TV 5.1").
//
// Nothing here ever asks for a unicast answer (the QU bit, section 5.4): port 5353 is shared
// with other responders on the machine, and the kernel gives a unicast packet to only one of
// them. Such questions of others are answered as they wish. A unicast response is therefore
// no answer to anything, and dropped: a router may have let it in.
package mdns
