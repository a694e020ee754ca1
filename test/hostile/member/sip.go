package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

func sipBouts() []bout {
	return []bout{
		{name: "From of others", run: spoofedFrom},
		{name: "malformed SDP", run: badSDP},
		{name: "INVITEs without a transaction", run: orphanInvites},
		{name: "one branch, many calls", run: oneBranch},
		{name: "OPTIONS flood, not reading", deaf: true, run: optionsFlood},
		{name: "INVITE flood", run: inviteFlood},
		{name: "foreign BYE, CANCEL, ACK and responses", run: meddling},
		{name: "oversized and broken messages", run: oversized},
	}
}

func token() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// offer is a session description that a browser could have made.
const offer = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n" +
	"m=audio 9 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\na=rtcp-mux\r\na=mid:0\r\na=sendrecv\r\na=rtpmap:0 PCMU/8000\r\na=setup:actpass\r\na=ice-ufrag:evil\r\na=ice-pwd:evilevilevilevilevilevil\r\n" +
	"a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\na=candidate:1 1 udp 2130706431 192.0.2.66 40000 typ host\r\n"

// message is one SIP message; fields left empty are made up.
type message struct {
	method, from, to, branch, call, body string
	drop                                 string // a header to leave out
	more                                 []string
}

func (a *assault) sip(m message) []byte {
	host := a.me.domain()
	if m.branch == "" {
		m.branch = "z9hG4bK" + token()
	}
	if m.call == "" {
		m.call = token()
	}
	lines := []string{
		"Via: SIP/2.0/TLS evil.invalid:5061;branch=" + m.branch, "Max-Forwards: 70",
		fmt.Sprintf("From: <sip:%s@%s>;tag=%s", m.from, host, token()), fmt.Sprintf("To: <sip:%s@%s>", m.to, host),
		"Call-ID: " + m.call, "CSeq: 1 " + m.method, fmt.Sprintf("Contact: <sip:%s@%s>", m.from, host),
	}
	if m.body != "" {
		lines = append(lines, "Content-Type: application/sdp")
	}
	lines = append(append(lines, m.more...), fmt.Sprintf("Content-Length: %d", len(m.body)))
	out := []string{fmt.Sprintf("%s sip:%s@%s SIP/2.0", m.method, m.to, host)}
	for _, l := range lines {
		if m.drop == "" || !strings.HasPrefix(l, m.drop+":") {
			out = append(out, l)
		}
	}
	return []byte(strings.Join(append(out, "", m.body), "\r\n"))
}

// spoofedFrom calls in the name of each other member.
func spoofedFrom(ctx context.Context, a *assault) error {
	for ctx.Err() == nil && a.sent < 2000 {
		for _, from := range a.me.others() {
			for _, to := range a.me.others() {
				if err := a.write(a.sip(message{method: "INVITE", from: from.Slug, to: to.Slug, body: offer})); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func badSDP(ctx context.Context, a *assault) error {
	half := offer[:len(offer)/2]
	bad := []string{
		"x", "v=0", half, strings.Replace(offer, "SAVPF 0", "SAVPF 99", 1), strings.Replace(offer, "sha-256 00", "sha-256 zz", 1), strings.Replace(offer, "192.0.2.66", "999.1.1.1", 1),
		strings.Replace(offer, "a=ice-pwd:evilevilevilevilevilevil\r\n", "", 1), offer + strings.Repeat("m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n", 500),
		offer + strings.Repeat("a=candidate:1 1 udp 2130706431 10.77.0.1 40000 typ host\r\n", 600), strings.Repeat("\x00", 3000), offer + "a=" + strings.Repeat("y", 40_000) + "\r\n",
	}
	for i := 0; ctx.Err() == nil && i < 60; i++ {
		for _, to := range a.me.others() {
			if err := a.write(a.sip(message{method: "INVITE", from: a.me.slug(), to: to.Slug, body: bad[i%len(bad)]})); err != nil {
				return err
			}
		}
		pause(ctx, 20*time.Millisecond)
	}
	return nil
}

// orphanInvites have no header that a transaction needs: what is remembered for each of
// them is remembered for ever.
func orphanInvites(ctx context.Context, a *assault) error {
	for i := 0; ctx.Err() == nil && i < 6000; i++ {
		if err := a.write(a.sip(message{method: "INVITE", from: a.me.slug(), to: "x", drop: []string{"CSeq", "From", "To"}[i%3]})); err != nil {
			return err
		}
	}
	return nil
}

// oneBranch makes messages that the transaction layer swallows.
func oneBranch(ctx context.Context, a *assault) error {
	branch := "z9hG4bK" + token()
	for i := 0; ctx.Err() == nil && i < 6000; i++ {
		if err := a.write(a.sip(message{method: "INVITE", from: a.me.slug(), to: "x", branch: branch})); err != nil {
			return err
		}
	}
	return nil
}

func optionsFlood(ctx context.Context, a *assault) error {
	for i := 0; ctx.Err() == nil && i < 6000; i++ {
		if err := a.write(a.sip(message{method: "OPTIONS", from: a.me.slug(), to: "x"})); err != nil {
			return err
		}
	}
	return nil
}

func inviteFlood(ctx context.Context, a *assault) error {
	for i := 0; ctx.Err() == nil && i < 6000; i++ {
		if err := a.write(a.sip(message{method: "INVITE", from: a.me.slug(), to: "nobody", body: offer})); err != nil {
			return err
		}
	}
	return nil
}

// meddling speaks about dialogs and transactions that are none of its own.
func meddling(ctx context.Context, a *assault) error {
	for i := 0; ctx.Err() == nil && i < 500; i++ {
		for _, method := range []string{"BYE", "CANCEL", "ACK", "PRACK"} {
			if err := a.write(a.sip(message{method: method, from: a.me.slug(), to: "x"})); err != nil {
				return err
			}
		}
		res := a.sip(message{method: "INVITE", from: "tv", to: a.me.slug()})
		_, headers, _ := strings.Cut(string(res), "\r\n")
		if err := a.write([]byte("SIP/2.0 603 Decline\r\n" + headers)); err != nil {
			return err
		}
	}
	return nil
}

func oversized(_ context.Context, a *assault) error {
	long := strings.Repeat("A", 100_000)
	msgs := [][]byte{
		a.sip(message{method: "INVITE", from: a.me.slug(), to: "x", body: strings.Repeat(offer, 120)}),
		a.sip(message{method: "OPTIONS", from: a.me.slug(), to: "x", more: []string{"X-Long: " + long}}),
		a.sip(message{method: "OPTIONS", from: a.me.slug(), to: "x", more: strings.Split(strings.Repeat("X-Many: 1\n", 3000)+"X-Last: 1", "\n")}),
		a.sip(message{method: "OPTIONS", from: a.me.slug(), to: "x", drop: "Content-Length"}),
		[]byte(long + long), []byte("INVITE sip:x SIP/2.0\r\nContent-Length: 99999999999999999999\r\n\r\n"), []byte("\x00\x01\x02\r\n\r\n"), []byte("OPTIONS sip:x SIP/2.0\r\nContent-Length: -5\r\n\r\n"),
	}
	err := a.write(msgs[a.round/8%len(msgs)])
	time.Sleep(50 * time.Millisecond)
	return err
}
