// Package sessions owns calls: the SIP user agent on adopted member flows, the Call and
// its dialogs, routing and ringing, and who may call. RTP never passes through it; a
// Leg carries the media.
//
// Agent.Run serves until its context ends; every other method may be called from any
// goroutine. Every ending of a call goes through Call.finish, which frees camera and
// microphone. The package never dials: flows come from the Flows interface, and a
// request whose sender may not speak for its From is refused.
package sessions
