package e2e

import (
	"bytes"
	"encoding/base64"
	wire "encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/hallway-home/hallway/test/netlab"
)

// sniffs listens to all of the first segment until the given function is called, which gives what each flow carried.
func sniffs(t *testing.T, l *netlab.Lab, program string) (carried func() [][]byte) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "frames")
	cmd := (&netlab.Host{NS: l.Namespace()}).Command(t.Context(), program, "-device", l.First().Bridge(), "-file", file)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	return func() [][]byte {
		t.Helper()
		_ = in.Close()
		must(t, cmd.Wait())
		b, err := os.ReadFile(file)
		must(t, err)
		flows, frames := map[string][]byte{}, 0
		for ; len(b) >= 4; frames++ {
			n := 4 + wire.BigEndian.Uint32(b)
			key, data := flowOf(b[4:n])
			flows[key] = append(flows[key], data...)
			b = b[n:]
		}
		t.Logf("%d frames in %d flows", frames, len(flows))
		var all [][]byte
		for _, f := range flows {
			all = append(all, f)
		}
		return all
	}
}

// flowOf says to which flow a frame belongs, and what it carries there; what is no TCP or UDP is one flow.
func flowOf(frame []byte) (key string, data []byte) {
	if len(frame) < 14+20 {
		return "", frame
	}
	ip, head := frame[14:], 0
	var proto byte
	switch wire.BigEndian.Uint16(frame[12:]) {
	case 0x0800: // IPv4 (RFC 894)
		head, proto = int(ip[0]&15)*4, ip[9]
		ip = ip[:min(len(ip), int(wire.BigEndian.Uint16(ip[2:])))]
	case 0x86dd: // IPv6 (RFC 2464)
		head, proto = 40, ip[6]
	}
	if head == 0 || len(ip) < head+20 {
		return "", frame
	}
	key = string([]byte{proto}) + string(ip[head:head+4]) // ports
	if head == 40 {
		key += string(ip[8:40])
	} else {
		key += string(ip[12:20])
	}
	switch proto {
	case 6: // TCP
		return key, ip[min(head+int(ip[head+12]>>4)*4, len(ip)):]
	case 17: // UDP
		return key, ip[head+8:]
	}
	return "", frame
}

// disguises are the ways in which a text may stand in what somebody sends.
func disguises(text string) map[string][]byte {
	out := map[string][]byte{"raw": []byte(text), "hex": []byte(hex.EncodeToString([]byte(text))), "HEX": []byte(strings.ToUpper(hex.EncodeToString([]byte(text))))}
	for shift := range 3 { // what stands before it moves the groups of base64
		e := base64.RawStdEncoding.EncodeToString(append(make([]byte, shift), text...))
		e = e[(shift*8+5)/6 : len(e)-1]
		out[fmt.Sprint("base64 ", shift)] = []byte(e)
		out[fmt.Sprint("base64url ", shift)] = []byte(strings.NewReplacer("+", "-", "/", "_").Replace(e))
	}
	for _, order := range []wire.AppendByteOrder{wire.LittleEndian, wire.BigEndian} {
		var b []byte
		for _, u := range utf16.Encode([]rune(text)) {
			b = order.AppendUint16(b, u)
		}
		out[fmt.Sprint("UTF-16 ", order)] = b
	}
	return out
}

// finds searches what was carried for each canary in each disguise.
func finds(carried [][]byte, canaries map[string]string) map[string]bool {
	found := map[string]bool{}
	for name, text := range canaries {
		for how, b := range disguises(text) {
			found[name+", "+how] = slices.ContainsFunc(carried, func(f []byte) bool { return bytes.Contains(f, b) })
		}
	}
	return found
}

// canariesOf adds lines of both sides' SDP and pieces of the film that is sent.
func canariesOf(t *testing.T, phone *browser, film string, can map[string]string) {
	t.Helper()
	var sdp []string
	phone.run(`return [watch.pcs[0].localDescription.sdp, watch.pcs[0].remoteDescription.sdp]`, &sdp)
	for i, side := range []string{"page", "device"} {
		for what, line := range map[string]string{"ice-ufrag": `a=(ice-ufrag:\S+)`, "ice-pwd": `a=(ice-pwd:\S+)`, "ICE password": `a=ice-pwd:(\S+)`, "fingerprint": `a=(fingerprint:.+)\r`, "candidate": `a=(candidate:.+)\r`, "origin": `(o=.+)\r`} {
			m := regexp.MustCompile(line).FindStringSubmatch(sdp[i])
			if m == nil {
				t.Fatalf("the %s's SDP has no %s: %s", side, what, sdp[i])
			}
			can[what+" of the "+side] = m[1]
		}
	}
	b, err := os.ReadFile(film)
	must(t, err)
	for i := range 8 {
		at := len(b) / 10 * (i + 1)
		can[fmt.Sprint("piece of the film ", i)] = string(b[at : at+24])
	}
}

// inClear says all canaries in all disguises by plain HTTP from one host to another, and shows the lamp's name on the
// LAN; what the sniffer heard of it is the control of the search.
func inClear(t *testing.T, l *netlab.Lab, sniffer string, can map[string]string, from *netlab.Host, to, lamp *node) (carried func() [][]byte) {
	t.Helper()
	listened := sniffs(t, l, sniffer)
	lamp.stop()
	lamp.start("--names-on-lan")
	var all bytes.Buffer
	for _, text := range can {
		for how, d := range disguises(text) {
			if !strings.HasPrefix(how, "base64") {
				all.Write(d)
			}
		}
		for before := range 3 { // base64 as others make it: of more than the canary
			whole := []byte("…"[:before] + text + "and more")
			all.WriteString(" " + base64.StdEncoding.EncodeToString(whole) + " " + base64.URLEncoding.EncodeToString(whole) + "\n")
		}
	}
	clear := filepath.Join(t.TempDir(), "clear")
	must(t, os.WriteFile(clear, all.Bytes(), 0o600))
	site := to.host.Command(t.Context(), "node", "-e", `require("http").createServer((q, r) => { q.resume(); q.on("end", () => r.end("ok")) }).listen(8080, () => console.log("up"))`)
	up, err := site.StdoutPipe()
	must(t, err)
	must(t, site.Start())
	if _, err := up.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	if out, err := from.Command(t.Context(), "curl", "-sS", "--data-binary", "@"+clear, "http://"+to.host.IPv4+":8080/").CombinedOutput(); err != nil || string(out) != "ok" {
		t.Fatalf("%v: %s", err, out)
	}
	time.Sleep(3 * time.Second) // mDNS probes for 750 ms before it announces (RFC 6762 section 8.1)
	return listened
}

// TestA31_ASnifferReadsNothing: a neighbour hears every frame of the LAN while devices are admitted by code
// and token, a phone is paired by a typed code, logs in, changes names and calls a device. Names, codes, tokens, cookies,
// lines of SDP and pieces of the film that is sent are in none of them. With names on the LAN switched on, and sent by
// plain HTTP, the same search finds them.
func TestA31_ASnifferReadsNothing(t *testing.T) {
	withApp(t)
	l := newLab(t)
	file, film := program(t, "sniffer"), clip(t, 440)
	stove := newNode(t, l, "Canarystove", "panel", "Canarykitchen", "--source-clip", film, "--auto-answer", "yes")
	lamp := newNode(t, l, "Canarylamp", "speaker", "Canaryhall")
	tv := newNode(t, l, "Canaryscreen", "tv", "Canarysalon")
	listened := sniffs(t, l, file)
	born := stove.start().run("home", "create", "Canaryhome")
	can := map[string]string{}
	for _, name := range []string{"Canarystove", "Canarykitchen", "Canarylamp", "Canaryhall", "Canaryscreen", "Canarysalon", "Canaryanna", "Canaryphone", "Canaryattic", "Canarygroup"} {
		can["name "+name] = name
		can["slug of "+name] = strings.ToLower(name)
	}
	can["name of the home"] = "Canaryhome"
	can["recovery code"] = regexp.MustCompile(`"recovery":"([^"]+)"`).FindStringSubmatch(born)[1]
	can["join token"] = ask[struct{ Token string }](stove, "invite").Token
	tv.start("--join", can["join token"])
	p := ask[pairState](lamp.start(), "pair", "--no-wait")
	can["pairing code"] = p.Code
	stove.eventually(10*time.Second, "the lamp is admitted", func() bool { _, code := stove.try("add", p.ShortID, p.Code); return code == 0 })
	stove.eventually(10*time.Second, "all belong", func() bool {
		return stove.sees("canarylamp") == "reachable" && stove.sees("canaryscreen") == "reachable"
	})

	origin := stove.origin()
	h := l.MustHost(t, "anna")
	phone := stove.browserOn(h, stove.host.IPv4)
	if _, err := phone.command(map[string]any{"do": "before", "js": watchCapture}); err != nil {
		t.Fatal(err)
	}
	w := ask[phoneWindow](stove, "phone", "--name", "Canaryanna", "--role", "owner", "--no-wait")
	can["code for a phone"] = w.Code
	_, can["secret of the QR code"], _ = strings.Cut(w.URL, "#pair=")
	if status, err := phone.open(origin + "/"); err != nil || status != http.StatusOK {
		t.Fatal(status, err)
	}
	phone.typed(w.Code, "Canaryphone")
	phone.letIn(stove)
	phone.wait("[data-slug=canarystove][aria-disabled=false]")
	var session struct{ CSRF string }
	phone.eval(`const s = await hallway.login(); await hallway.call("POST", "/home/rooms", { name: "Canaryattic" }); await hallway.call("POST", "/home/groups", { name: "Canarygroup", members: ["canarylamp"] }); return s`, &session)
	raw, err := phone.command(map[string]any{"do": "cookies"})
	must(t, err)
	can["CSRF token"], can["cookie"] = session.CSRF, strings.Trim(string(raw), `"[]`)
	phone.begin(`watch.sees(8000)`)
	phone.click("[data-slug=canarystove]")
	phone.finished("it sees and hears")
	c := stove.calls()[0]
	stove.eventually(5*time.Second, "it sees and hears the page", flows(stove, c.ID))
	canariesOf(t, phone, film, can)
	time.Sleep(4 * time.Second) // the film is 4 s long
	phone.click(button("Hang up"))
	phone.wait("text=The call has ended")
	if len(can) < 30 {
		t.Fatalf("only %d canaries", len(can))
	}
	for name, text := range can {
		if len(text) < 8 {
			t.Errorf("%s is too short to be searched: %q", name, text)
		}
	}
	said := listened()
	total := 0
	for _, f := range said {
		total += len(f)
	}
	if total < 1<<20 {
		t.Fatalf("only %d bytes were heard; the sniffer is deaf", total)
	}
	for what, there := range finds(said, can) {
		if there {
			t.Errorf("on the LAN a neighbour reads: %s", what)
		}
	}

	found := inClear(t, l, file, can, h, tv, lamp)
	stove.eventually(10*time.Second, "the lamp is back", func() bool { return stove.sees("canarylamp") == "reachable" })
	said = found()
	if seen := slices.DeleteFunc(slices.Clone(said), func(f []byte) bool { return bytes.Contains(f, []byte("POST / HTTP/1.1")) }); !finds(seen, map[string]string{"lamp": "Canarylamp"})["lamp, raw"] {
		t.Error("with names on the LAN switched on, no name is seen")
	}
	for what, there := range finds(said, can) {
		if !there {
			t.Errorf("in clear the search does not find: %s", what)
		}
	}
}
