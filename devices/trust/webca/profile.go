package webca

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"encoding/xml"
)

// profile is Apple's "Configuration Profile" with one com.apple.security.root payload.
const profile = `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0"><dict>
<key>PayloadContent</key><array><dict>
<key>PayloadCertificateFileName</key><string>hallway.cer</string>
<key>PayloadContent</key><data>
%s</data>
<key>PayloadDisplayName</key><string>%s</string>
<key>PayloadIdentifier</key><string>%s.ca</string>
<key>PayloadType</key><string>com.apple.security.root</string>
<key>PayloadUUID</key><string>%s</string>
<key>PayloadVersion</key><integer>1</integer>
</dict></array>
<key>PayloadDisplayName</key><string>Hallway: %s</string>
<key>PayloadDescription</key><string>Lets this device recognise the Hallway companion of this home. It is good for that one name only.</string>
<key>PayloadIdentifier</key><string>%s</string>
<key>PayloadType</key><string>Configuration</string>
<key>PayloadUUID</key><string>%s</string>
<key>PayloadVersion</key><integer>1</integer>
</dict></plist>
`

func base64Lines(b []byte) string {
	const width = 64
	s := base64.StdEncoding.EncodeToString(b)
	var out bytes.Buffer
	for len(s) > 0 {
		n := min(width, len(s))
		out.WriteString(s[:n] + "\n")
		s = s[n:]
	}
	return out.String()
}

func xmlText(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer does not fail
	return b.String()
}

// PEM is a certificate as Android, desktops and command lines take it.
func PEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
