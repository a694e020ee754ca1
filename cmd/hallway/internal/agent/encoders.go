package agent

import (
	"context"
	"reflect"
	"slices"

	"github.com/hallway-home/hallway/profiles"
)

// tryEncoders finds out, beside everything else, which encoders of the source pipeline
// work on this machine, unless that is known from before. Until then all are believed to.
func (a *Agent) tryEncoders(ctx context.Context) error {
	p, err := a.cfg.SourcePipeline()
	if err != nil || p == nil {
		return err
	}
	for _, kind := range profiles.Kinds() {
		s := p.Of(kind)
		if s == nil || !slices.Contains(s.Output, "{{.Encoder}}") || a.encoders.Fresh(p.Command[0], s.Codecs) {
			continue
		}
		for _, codec := range s.Codecs {
			e, err := a.encoders.Pick(ctx, p.Command[0], codec)
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the agent stops
			}
			if err != nil {
				a.log.Warn("a codec is left out", "pipeline", p.Name, "err", err)
				continue
			}
			a.log.Info("an encoder works here", "pipeline", p.Name, "codec", codec, "encoder", e.Name)
		}
	}
	caps, err := a.box.Makes(a.profile.Capabilities)
	if err != nil || reflect.DeepEqual(caps, *a.caps.Load()) {
		return nil //nolint:nilerr // was told at the start
	}
	a.caps.Store(&caps)
	a.sip.SetCapability(caps)
	a.recordChanged()
	return nil
}
