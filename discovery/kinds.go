package discovery

import (
	"slices"
	"strings"
)

const (
	isHallway = "Hallway node"
	isUnknown = "UPnP device"
)

// WhatIs says what a thing with these service and device types is, in the words of people;
// a thing that is several sorts of thing has several, with commas.
func WhatIs(kinds []string) string {
	if w := words(kinds); len(w) > 0 {
		return strings.Join(w, ", ")
	}
	return isUnknown
}

// words are in the order in which people would say them, without isUnknown.
func words(kinds []string) []string {
	var out []string
	for _, sort := range []struct {
		word  string
		kinds []string // DNS-SD types, names of UPnP device types, ONVIF types
	}{
		{isHallway, []string{Type, "HomeSession"}},
		{"camera", []string{"_rtsp._tcp", "_axis-video._tcp", "dn:NetworkVideoTransmitter", "DigitalSecurityCamera"}},
		{"SIP phone", []string{"_sip._udp", "_sipuri._udp"}},
		{"cast", []string{"_googlecast._tcp"}},
		{"AirPlay", []string{"_airplay._tcp", "_raop._tcp"}},
		{"renderer", []string{"MediaRenderer", "ZonePlayer"}},
		{"media server", []string{"MediaServer"}},
		{"router", []string{"InternetGatewayDevice", "WLANAccessPointDevice"}},
		{"printer", []string{"Printer"}},
		{"HomeKit", []string{"_hap._tcp"}},
		{"Matter", []string{"_matter._tcp"}},
		{"ESPHome", []string{"_esphomelib._tcp"}},
	} {
		if slices.ContainsFunc(kinds, func(k string) bool { return slices.Contains(sort.kinds, plainKind(k)) }) {
			out = append(out, sort.word)
		}
	}
	return out
}

// plainKind takes the name out of "urn:DOMAIN:device:NAME:VERSION" (UPnP Device
// Architecture 2.0 section 2.3). Our own name counts only in our own domain.
func plainKind(k string) string {
	f := strings.Split(k, ":")
	if len(f) != 5 || f[0] != "urn" || f[2] != "device" || f[3] == "HomeSession" && k != UPnPType {
		return k
	}
	return f[3]
}
