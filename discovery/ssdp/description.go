package ssdp

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"

	"github.com/hallway-home/hallway/discovery"
)

const (
	// maxDescription: descriptions with all icons and services have up to 20 kB.
	maxDescription = 64 << 10
	// maxDepth: root, device, deviceList, device, serviceList, service, name: a device in a
	// device in a device has ten.
	maxDepth = 16
	// maxElements is some ten times what a large description has.
	maxElements = 4096
	// maxEmbedded devices; a Sonos has two.
	maxEmbedded = 8
)

// description is what a device says it is (UDA 2.0 section 2.3).
type description struct {
	deviceType string
	name       string // friendlyName
	maker      string
	model      string
	udn        string
	embedded   []string // types of the devices inside
}

var errDescription = errors.New("this is no device description")

// parseDescription reads XML within limits. Declarations of entities (and so any DOCTYPE)
// are refused, and none but XML's own five are known to the decoder.
func parseDescription(data []byte) (description, error) {
	var d description
	if len(data) > maxDescription {
		return d, fmt.Errorf("%w: longer than %d bytes", errDescription, maxDescription)
	}
	dec := xml.NewDecoder(bytes.NewReader(data))
	var path []string
	elements := 0
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return d, fmt.Errorf("%w: %w", errDescription, err)
		}
		switch t := tok.(type) {
		case xml.Directive:
			return d, fmt.Errorf("%w: it declares something of its own", errDescription)
		case xml.StartElement:
			path = append(path, t.Name.Local)
			if elements++; elements > maxElements || len(path) > maxDepth {
				return d, fmt.Errorf("%w: too large or too deep", errDescription)
			}
		case xml.EndElement:
			path = path[:len(path)-1]
		case xml.CharData:
			d.take(path, string(t))
		}
	}
	if d.deviceType == "" || d.udn == "" {
		return d, fmt.Errorf("%w: it names no type or no UDN", errDescription)
	}
	return d, nil
}

func (d *description) take(path []string, text string) {
	text = discovery.OneLine(text)
	n := len(path)
	if n < 3 || path[0] != "root" || path[n-2] != "device" || text == "" {
		return
	}
	if n > 3 {
		if path[n-1] == "deviceType" && len(d.embedded) < maxEmbedded && !slices.Contains(d.embedded, text) {
			d.embedded = append(d.embedded, text)
		}
		return
	}
	switch path[2] {
	case "deviceType":
		d.deviceType = text
	case "friendlyName":
		d.name = text
	case "manufacturer":
		d.maker = text
	case "modelName":
		d.model = text
	case "UDN":
		d.udn = text
	}
}

// Device is what this node says of itself. Nothing in it tells whose it is.
type Device struct {
	UUID         string // lower case, without "uuid:"
	Name         string // friendlyName
	Presentation string // URL of the companion, empty while there is none
}

// xmlEscape is for the texts of our own description.
func xmlEscape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder cannot fail
	return b.String()
}

// describe makes the description and its CONFIGID.UPNP.ORG, a number that is another
// whenever the description is (UDA 2.0 section 1.2.2: 0 to 2^24-1).
func (d Device) describe(deviceType string) (doc []byte, config uint32) {
	var b strings.Builder
	fmt.Fprintf(&b, "<specVersion><major>2</major><minor>0</minor></specVersion>\n<device>\n<deviceType>%s</deviceType>\n", deviceType)
	fmt.Fprintf(&b, "<friendlyName>%s</friendlyName>\n<manufacturer>Hallway</manufacturer>\n<modelName>Hallway</modelName>\n<UDN>uuid:%s</UDN>\n",
		xmlEscape(d.Name), xmlEscape(d.UUID))
	if d.Presentation != "" {
		fmt.Fprintf(&b, "<presentationURL>%s</presentationURL>\n", xmlEscape(d.Presentation))
	}
	b.WriteString("</device>\n</root>\n")
	config = crc32.ChecksumIEEE([]byte(b.String())) & 0xffffff
	return fmt.Appendf(nil, "<?xml version=\"1.0\"?>\n<root xmlns=\"urn:schemas-upnp-org:device-1-0\" configId=\"%d\">\n%s", config, b.String()), config
}
