package media

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"time"
)

// Element identifiers of Matroska (RFC 9559 section 5.1).
const (
	idEBML, idSegment, idInfo, idTracks, idCluster  = 0x1A45DFA3, 0x18538067, 0x1549A966, 0x1654AE6B, 0x1F43B675
	idTrackEntry, idVideo, idAudio, idSimpleBlock   = 0xAE, 0xE0, 0xE1, 0xA3
	idTimestampScale, idDuration, idTimestamp       = 0x2AD7B1, 0x4489, 0xE7
	idTrackNumber, idTrackUID, idTrackType          = 0xD7, 0x73C5, 0x83
	idCodecID, idCodecPrivate, idMuxer, idWriter    = 0x86, 0x63A2, 0x4D80, 0x5741
	idWidth, idHeight, idSampling, idChannels       = 0xB0, 0xBA, 0xB5, 0x9F
	idDocType, idDocVersion, idDocReadVersion       = 0x4282, 0x4287, 0x4285
	idEBMLVersion, idEBMLRead, idMaxID, idMaxLength = 0x4286, 0x42F7, 0x42F2, 0x42F3
)

const (
	// clusterTime is how much a crash may cost: a cluster reaches the file whole or not.
	clusterTime = 500 * time.Millisecond
	// clusterBytes bounds the memory of one cluster, whatever the sender's bit rate.
	clusterBytes = 1 << 20
	// blockReach is how far a block's 16-bit time may lie from its cluster's (RFC 9559 section 10.2).
	blockReach = math.MaxInt16 - 1000
)

// mkvTrack describes one track of a file.
type mkvTrack struct {
	video         bool
	codec         string
	private       []byte
	width, height uint64
	sampling      float64
	channels      uint64
}

type mkvBlock struct {
	track int
	at    int64 // ms
	key   bool
	data  []byte
}

// mkvFile writes a Matroska file cluster by cluster, so that it plays as far as it was
// written even if the process is killed. Not safe for concurrent use.
type mkvFile struct {
	f          *os.File
	blocks     []mkvBlock
	size       int
	end        int64 // ms, of the last block
	segmentPos int64 // of the segment's size field
	lengthPos  int64 // of the duration's value
}

// newMKV writes the header to f and owns f from then on.
func newMKV(f *os.File, tracks []mkvTrack) (*mkvFile, error) {
	head := element(idEBML, slices.Concat(
		uintElement(idEBMLVersion, 1), uintElement(idEBMLRead, 1), uintElement(idMaxID, 4), uintElement(idMaxLength, 8),
		element(idDocType, []byte("matroska")), uintElement(idDocVersion, 4), uintElement(idDocReadVersion, 2)))
	m := &mkvFile{f: f, segmentPos: int64(len(head)) + 4}
	head = append(appendID(head, idSegment), 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff) // unknown until the end
	info := slices.Concat(uintElement(idTimestampScale, uint64(time.Millisecond)), element(idMuxer, []byte("hallway")), element(idWriter, []byte("hallway")), floatElement(idDuration, 0))
	head = append(head, element(idInfo, info)...)
	m.lengthPos = int64(len(head)) - 8
	var entries []byte
	for i, t := range tracks {
		entries = append(entries, t.entry(uint64(i+1))...)
	}
	head = append(head, element(idTracks, entries)...)
	if _, err := f.Write(head); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("cannot write the recording: %w", err)
	}
	return m, nil
}

func (t mkvTrack) entry(number uint64) []byte {
	b := slices.Concat(uintElement(idTrackNumber, number), uintElement(idTrackUID, number), element(idCodecID, []byte(t.codec)))
	if len(t.private) > 0 {
		b = append(b, element(idCodecPrivate, t.private)...)
	}
	if t.video {
		b = append(b, uintElement(idTrackType, 1)...)
		b = append(b, element(idVideo, slices.Concat(uintElement(idWidth, t.width), uintElement(idHeight, t.height)))...)
	} else {
		b = append(b, uintElement(idTrackType, 2)...)
		b = append(b, element(idAudio, slices.Concat(floatElement(idSampling, t.sampling), uintElement(idChannels, t.channels)))...)
	}
	return element(idTrackEntry, b)
}

// add takes one frame; at is its time in the file. data belongs to the file afterwards.
func (m *mkvFile) add(track int, at time.Duration, key bool, data []byte) error {
	ms := at.Milliseconds()
	m.end = max(m.end, ms)
	if len(m.blocks) > 0 {
		span := ms - m.blocks[0].at
		if span >= clusterTime.Milliseconds() || span < -blockReach || m.size+len(data) > clusterBytes {
			if err := m.flush(); err != nil {
				return err
			}
		}
	}
	m.blocks = append(m.blocks, mkvBlock{track, ms, key, data})
	m.size += len(data)
	return nil
}

// flush writes what is held as one cluster, in the order of time.
func (m *mkvFile) flush() error {
	if len(m.blocks) == 0 {
		return nil
	}
	slices.SortStableFunc(m.blocks, func(a, b mkvBlock) int { return int(a.at - b.at) })
	start := m.blocks[0].at
	body := make([]byte, 0, m.size+16*len(m.blocks)+16)
	body = append(body, uintElement(idTimestamp, uint64(start))...) //nolint:gosec // the recorder's time line starts at 0
	for _, b := range m.blocks {
		flags := byte(0)
		if b.key {
			flags = 0x80
		}
		body = appendSize(appendID(body, idSimpleBlock), uint64(4+len(b.data)))
		body = append(body, 0x80|byte(b.track+1))
		body = binary.BigEndian.AppendUint16(body, uint16(b.at-start)) //nolint:gosec // add keeps it in reach
		body = append(append(body, flags), b.data...)
	}
	m.blocks, m.size = m.blocks[:0], 0
	if _, err := m.f.Write(element(idCluster, body)); err != nil {
		return fmt.Errorf("cannot write the recording: %w", err)
	}
	return nil
}

// close writes the rest, the length and the size, and closes the file.
func (m *mkvFile) close() error {
	err := m.flush()
	if at, e := m.f.Seek(0, io.SeekEnd); e == nil && err == nil {
		size := binary.BigEndian.AppendUint64(nil, 1<<56|uint64(at-m.segmentPos-8)) //nolint:gosec // a length
		length := binary.BigEndian.AppendUint64(nil, math.Float64bits(float64(m.end)))
		if _, err = m.f.WriteAt(size, m.segmentPos); err == nil {
			_, err = m.f.WriteAt(length, m.lengthPos)
		}
	}
	if e := m.f.Close(); err == nil {
		err = e
	}
	return err
}

func appendID(b []byte, id uint32) []byte {
	for shift := 24; shift >= 0; shift -= 8 {
		if id>>shift != 0 {
			b = append(b, byte(id>>shift))
		}
	}
	return b
}

// appendSize writes a variable-length size (RFC 8794 section 4).
func appendSize(b []byte, n uint64) []byte {
	for length := 1; length < 8; length++ {
		if n < 1<<(7*length)-1 {
			n |= 1 << (7 * length)
			for shift := 8 * (length - 1); shift >= 0; shift -= 8 {
				b = append(b, byte(n>>shift))
			}
			return b
		}
	}
	return binary.BigEndian.AppendUint64(b, 1<<56|n)
}

func element(id uint32, body []byte) []byte {
	return append(appendSize(appendID(nil, id), uint64(len(body))), body...)
}

func uintElement(id uint32, v uint64) []byte {
	b := binary.BigEndian.AppendUint64(nil, v)
	for len(b) > 1 && b[0] == 0 {
		b = b[1:]
	}
	return element(id, b)
}

func floatElement(id uint32, v float64) []byte {
	return element(id, binary.BigEndian.AppendUint64(nil, math.Float64bits(v)))
}
