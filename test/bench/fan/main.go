// Command fan is the two ends of the fan-out bench, each a process of its own: `serve
// SOCKET` is a device with a camera, `view SOCKET N` is N viewers, `camera PORT` is the
// camera, `camera HOST:PORT` one without a device between, `tap INTERFACE PAYLOAD-TYPE` notes
// when the kernel received each frame. Both ends use the media of an agent as it is; only the
// SIP between them is left out. For whole agents it is the camera, `rtsp ADDRESS`, and the
// screen of each viewer, `sink DIR SDP`.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "fan:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "serve":
		return serve(args[1])
	case len(args) == 2 && args[0] == "camera":
		return camera(args[1])
	case len(args) == 3 && args[0] == "view":
		return view(args[1], args[2])
	case len(args) == 3 && args[0] == "tap":
		return tap(args[1], args[2])
	case len(args) == 2 && args[0] == "rtsp":
		return rtsp(args[1])
	case len(args) == 3 && args[0] == "sink":
		return sink(args[1], args[2])
	}
	return fmt.Errorf("usage: fan serve SOCKET | view SOCKET N | camera [HOST:]PORT | tap INTERFACE PAYLOAD-TYPE | rtsp ADDRESS | sink DIR SDP")
}
