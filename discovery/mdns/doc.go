// Package mdns speaks Multicast DNS (RFC 6762) and DNS-SD (RFC 6763): it announces this
// node's services with probing, renaming, refresh and goodbye, and browses service types
// continuously, reporting additions, updates and removals once, however many interfaces
// a thing is heard on.
//
// One goroutine (Engine.Run) owns all state; Announce, Browse and the methods of a
// Registration hand it closures and may be called from anywhere. Packets from sources
// that are not on the link are refused; the cache is bounded.
package mdns
