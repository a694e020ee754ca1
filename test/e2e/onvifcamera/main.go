// Command onvifcamera is an ONVIF camera as far as WS-Discovery goes: it says Hello on
// eth0, answers probes for network video transmitters, and says Bye at SIGTERM. Argument:
// its name.
package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

const (
	group    = "239.255.255.250:3702"
	endpoint = "urn:uuid:5f5a69c2-e0ae-504f-829b-00aabbccddee"
	head     = `<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery" xmlns:dn="http://www.onvif.org/ver10/network/wsdl">`
)

// probe is the part of a probe that a camera reads.
type probe struct {
	MessageID string `xml:"Header>MessageID"`
	Types     string `xml:"Body>Probe>Types"`
}

type camera struct {
	name, addr string
	conn       *net.UDPConn
	to         *net.UDPAddr
}

func (c camera) about() string {
	return "<a:EndpointReference><a:Address>" + endpoint + "</a:Address></a:EndpointReference><d:Types>dn:NetworkVideoTransmitter</d:Types><d:Scopes>onvif://www.onvif.org/type/video_encoder onvif://www.onvif.org/name/" +
		c.name + "</d:Scopes><d:XAddrs>http://" + c.addr + "/onvif/device_service</d:XAddrs><d:MetadataVersion>1</d:MetadataVersion>"
}

func (c camera) say(to *net.UDPAddr, header, body string) error {
	_, err := c.conn.WriteToUDP([]byte(head+"<s:Header><a:MessageID>urn:uuid:1</a:MessageID>"+header+"</s:Header><s:Body>"+body+"</s:Body></s:Envelope>"), to)
	return err
}

// answer serves probes until the socket is closed.
func (c camera) answer() {
	buf := make([]byte, 65536)
	for {
		n, from, err := c.conn.ReadFromUDP(buf)
		if err != nil {
			return
		}
		var p probe
		if xml.NewDecoder(bytes.NewReader(buf[:n])).Decode(&p) != nil || !strings.Contains(p.Types, "NetworkVideoTransmitter") {
			continue
		}
		_ = c.say(from, "<a:RelatesTo>"+p.MessageID+"</a:RelatesTo>", "<d:ProbeMatches><d:ProbeMatch>"+c.about()+"</d:ProbeMatch></d:ProbeMatches>")
	}
}

func run(ctx context.Context, name string) error {
	eth, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	c := camera{name: name}
	addrs, err := eth.Addrs()
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
			c.addr = n.IP.String()
		}
	}
	if c.to, err = net.ResolveUDPAddr("udp4", group); err != nil {
		return err
	}
	if c.conn, err = net.ListenMulticastUDP("udp4", eth, c.to); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() { c.answer(); close(done) }()
	if err := c.say(c.to, "", "<d:Hello>"+c.about()+"</d:Hello>"); err != nil {
		return err
	}
	<-ctx.Done()
	err = c.say(c.to, "", "<d:Bye><a:EndpointReference><a:Address>"+endpoint+"</a:Address></a:EndpointReference></d:Bye>")
	_ = c.conn.Close()
	<-done
	return err
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // the end
	}
}
