package main

import (
	"bytes"
	"time"

	"github.com/bluenviron/gortsplib/v4"
	"github.com/bluenviron/gortsplib/v4/pkg/base"
	"github.com/bluenviron/gortsplib/v4/pkg/description"
	"github.com/bluenviron/gortsplib/v4/pkg/format"
)

// rtspCamera serves the pictures of camera by RTSP.
type rtspCamera struct{ stream *gortsplib.ServerStream }

// OnDescribe is part of the library's handler, as is OnSetup.
func (c *rtspCamera) OnDescribe(*gortsplib.ServerHandlerOnDescribeCtx) (*base.Response, *gortsplib.ServerStream, error) { //nolint:unparam // the library wants the error
	return &base.Response{StatusCode: base.StatusOK}, c.stream, nil
}

// OnSetup lets everybody in.
func (c *rtspCamera) OnSetup(*gortsplib.ServerHandlerOnSetupCtx) (*base.Response, *gortsplib.ServerStream, error) { //nolint:unparam // the library wants the error
	return &base.Response{StatusCode: base.StatusOK}, c.stream, nil
}

// OnPlay lets it run.
func (c *rtspCamera) OnPlay(*gortsplib.ServerHandlerOnPlayCtx) (*base.Response, error) { //nolint:unparam // the library wants the error
	return &base.Response{StatusCode: base.StatusOK}, nil
}

// rtsp is the same camera with a socket of its own: packets of 1,460 bytes, as cameras send
// them, over UDP. It runs until it is ended.
func rtsp(listen string) error {
	sps, pps := parameterSets()
	video := &format.H264{PayloadTyp: 96, PacketizationMode: 1, SPS: sps, PPS: pps}
	media := &description.Media{Type: description.MediaTypeVideo, Formats: []format.Format{video}}
	c := &rtspCamera{}
	server := &gortsplib.Server{Handler: c, RTSPAddress: listen, UDPRTPAddress: ":8000", UDPRTCPAddress: ":8001"}
	if err := server.Start(); err != nil {
		return err
	}
	c.stream = gortsplib.NewServerStream(server, &description.Session{Medias: []*description.Media{media}})
	enc, err := video.CreateEncoder()
	if err != nil {
		return err
	}
	start := time.Now()
	for frame := 0; ; frame++ {
		time.Sleep(time.Until(start.Add(time.Duration(frame) * time.Second / rate)))
		var units [][]byte
		for _, u := range bytes.Split(picture(frame, time.Now()), []byte{0, 0, 0, 1}) {
			if len(u) > 0 {
				units = append(units, u)
			}
		}
		packets, err := enc.Encode(units)
		if err != nil {
			return err
		}
		for _, p := range packets {
			p.Timestamp = uint32(frame) * 90000 / rate //nolint:gosec // wraps
			if err := c.stream.WritePacketRTP(media, p); err != nil {
				return err
			}
		}
	}
}
