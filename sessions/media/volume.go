package media

import "sync"

// FullVolume is the loudest, and what a device begins with.
const FullVolume = 100

// volume is the loudness of a device's output. Sinks that run follow it.
type volume struct {
	mu    sync.Mutex
	level int
	sinks map[*pipelineSink]struct{}
}

func newVolume() *volume { return &volume{level: FullVolume, sinks: map[*pipelineSink]struct{}{}} }

func (v *volume) get() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.level
}

func (v *volume) follow(s *pipelineSink) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sinks[s] = struct{}{}
}

func (v *volume) leave(s *pipelineSink) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.sinks, s)
}

func (v *volume) set(level int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if level == v.level {
		return
	}
	v.level = level
	for s := range v.sinks {
		s.renew()
	}
}

// SetVolume sets how loud the device's output is, from 0 to FullVolume. What plays is
// started anew with it, which takes a moment: the programs have no other way.
func (b *Box) SetVolume(level int) { b.volume.set(min(max(level, 0), FullVolume)) }

// Volume is how loud the output is, and whether its pipeline can be told.
func (b *Box) Volume() (level int, works bool) {
	return b.volume.get(), b.sink.Pipeline != nil && takesVolume(*b.sink.Pipeline)
}
