package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hallway-home/hallway/cmd/hallway/internal/api"
	"github.com/hallway-home/hallway/devices"
	"github.com/hallway-home/hallway/devices/trust"
	"github.com/hallway-home/hallway/sessions/media/rtsp"
)

// Adopt implements api.Backend. The speaker tries the camera before anything is signed, and
// keeps the password; the roster gets the address without it. An address that is adopted
// already gets a new password, and what else is given.
func (a *Agent) Adopt(ctx context.Context, req api.AdoptRequest) (api.Adoption, error) {
	r, err := a.home()
	if err != nil {
		return api.Adoption{}, err
	}
	if err := trust.MayEdit(r, a.self); err != nil {
		return api.Adoption{}, err
	}
	public, err := rtsp.PublicURL(req.URI)
	if err != nil {
		return api.Adoption{}, fmt.Errorf("%w: %w", api.ErrInput, err)
	}
	speaker := a.self
	if req.Via != "" {
		nodes, err := a.nodesOf([]string{req.Via})
		if err != nil {
			return api.Adoption{}, err
		}
		speaker = nodes[0]
	}
	d, err := a.tryCamera(ctx, speaker, req.URI)
	if err != nil {
		return api.Adoption{}, fmt.Errorf("%w: %w", api.ErrCamera, err)
	}
	ad := devices.Adopted{Name: req.Name, Room: req.Room, Class: cmp.Or(req.Class, devices.ClassCamera), URI: public, Speakers: []devices.NodeID{speaker}}
	if old, ok := adoptedAt(r, public); ok {
		ad.Slug, ad.Name, ad.Room = old.Slug, cmp.Or(ad.Name, old.Name), cmp.Or(ad.Room, old.Room)
		ad.Class = cmp.Or(req.Class, old.Class)
		ad.Speakers = old.Speakers
		if !slices.Contains(ad.Speakers, speaker) {
			ad.Speakers = append(slices.Clone(ad.Speakers), speaker)
		}
		a.log.Info("a camera is adopted again", "camera", ad.Slug)
	}
	if ad.Name == "" {
		return api.Adoption{}, fmt.Errorf("%w: give it a name with --name", api.ErrInput)
	}
	if err := a.roster.SetForeign(a.key, ad); err != nil {
		return api.Adoption{}, err
	}
	a.settle()
	a.lookNow()
	r = a.roster.Roster()
	now, ok := adoptedAt(r, public)
	if !ok {
		return api.Adoption{}, errors.New("another owner ended it in the same moment; adopt it again")
	}
	out := api.Adoption{Slug: now.Slug, Name: now.Name, Room: now.Room, URI: devices.AOR{Slug: now.Slug, Home: r.Home}.String(), Speaker: r.Members[speaker].Slug, Left: d.Left, Certificate: rtsp.Fingerprint(d.Certificate)}
	for _, t := range d.Tracks {
		out.Codecs = append(out.Codecs, t.Codec.Name)
	}
	return out, nil
}

func adoptedAt(r *devices.Roster, public string) (devices.Adopted, bool) {
	for _, ad := range r.Adopted {
		if ad.URI == public {
			return ad, true
		}
	}
	return devices.Adopted{}, false
}

// tryCamera lets the speaker look at the camera. To another one the address with its
// password travels over member TLS alone, and only that node keeps it.
func (a *Agent) tryCamera(ctx context.Context, speaker devices.NodeID, address string) (rtsp.Description, error) {
	if speaker == a.self {
		return a.learnCamera(ctx, address)
	}
	m, ok := a.dir.Snapshot().Device(speaker)
	if !ok {
		return rtsp.Description{}, trust.ErrNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, relayTime)
	defer cancel()
	answer, err := a.ask(ctx, m, question{Camera: address})
	switch {
	case err != nil:
		return rtsp.Description{}, fmt.Errorf("%s could not be asked to look at it: %w", m.Name, err)
	case answer.Camera == nil:
		return rtsp.Description{}, fmt.Errorf("%s does not know how to speak for a camera; update Hallway there", m.Name)
	case answer.Camera.Fault != "":
		return rtsp.Description{}, fmt.Errorf("%s tried it: %s", m.Name, answer.Camera.Fault)
	}
	return answer.Camera.Description, nil
}

// cameraReply is what a speaker found when an owner asked it to look at a camera.
type cameraReply struct {
	rtsp.Description
	Fault string `json:"fault,omitempty"`
}

// maxReplyTracks bounds what another node may say: sound and picture.
const maxReplyTracks = 2

// answerCamera looks at a camera for an owner: nobody else may make this node dial, or give
// it a password to keep.
func (a *Agent) answerCamera(ctx context.Context, from devices.Device, address string) (*cameraReply, error) {
	r := a.roster.Roster()
	if r == nil || r.Members[from.Node].Role != devices.RoleOwner { // check: camera of an owner
		return nil, errors.New("only an owner may give this device a camera")
	}
	a.log.Info("an owner gives this device a camera to speak for", "peer", from.Slug)
	d, err := a.learnCamera(ctx, address)
	if err != nil {
		return &cameraReply{Fault: err.Error()}, nil //nolint:nilerr // it is the answer
	}
	return &cameraReply{Description: d}, nil
}
