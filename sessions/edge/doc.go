// Package edge owns the phones that are connected to this node: browsers that speak SIP over
// secure WebSockets (RFC 7118). For them it is registrar and forking proxy: it screens what they
// send, rings them and the devices they call, and ends the calls of a phone that is gone. Media
// never pass through it, and it never changes a session description.
//
// Edge.Serve is called by the HTTPS server, in a goroutine for each request, with a phone that is
// already logged in; Take and Stop by sessions.Agent. What a phone sends is refused unless it
// speaks for its own person, and its session description unless the phone has signed the
// fingerprints in it.
package edge
