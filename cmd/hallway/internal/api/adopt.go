package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallway-home/hallway/devices"
)

// AdoptRequest gives an RTSP camera a name and a URI in the home.
type AdoptRequest struct {
	URI   string        `json:"uri" minLength:"1" maxLength:"320" doc:"rtsp://user:password@host/path, or rtsps:// for TLS; the password stays with the device that speaks for the camera"`
	Name  string        `json:"name,omitempty" maxLength:"64" doc:"what to call it; not needed for one that is adopted already"`
	Room  string        `json:"room,omitempty" maxLength:"64"`
	Class devices.Class `json:"class,omitempty" maxLength:"48" doc:"camera, if not given"`
	Via   string        `json:"via,omitempty" maxLength:"64" doc:"name of the device that speaks for it; empty: this one"`
}

// Adoption is a camera that the home knows now.
type Adoption struct {
	Slug    string   `json:"slug"`
	Name    string   `json:"name"`
	Room    string   `json:"room,omitempty"`
	URI     string   `json:"uri" doc:"its SIP URI"`
	Speaker string   `json:"speaker"`
	Codecs  []string `json:"codecs" doc:"what it sends and can be passed on"`
	Left    string   `json:"left,omitempty" doc:"what it sends and is left out"`
	// Certificate is for people to compare.
	Certificate string `json:"certificate,omitempty" doc:"with rtsps: the first half of the SHA-256 of its certificate; no other one is taken from now on"`
}

// ErrCamera marks a camera that could not be used; nothing was changed.
var ErrCamera = errors.New("the camera was not adopted")

func adoptRoute(a huma.API, b Backend) {
	answer(a, op("adopt", http.MethodPost, "/home/cameras", "Try an RTSP camera and give it a name in the home"), func(ctx context.Context, in *struct{ Body AdoptRequest }) (*out[Adoption], error) {
		d, err := b.Adopt(ctx, in.Body)
		return &out[Adoption]{d}, problem(err)
	})
}
