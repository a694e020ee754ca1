// The picture that a caller shows while its call rings: each who rings opens a call of its own
// that only receives. It is named by a URI with a token that nobody can guess, is the camera that
// is open already, without sound, and ends with the ringing.
import type { RTCSession } from 'jssip/lib/RTCSession'
import { certificate } from './certificate'
import { onlyWatches } from './sip'

/** Each viewer costs an encode here; a household has no more who ring with a screen. */
const most = 8

let token = ''
let camera: MediaStreamTrack | null = null
const viewers = new Set<RTCSession>()

/** Offers the camera of a call that begins; gives the headers that say so. */
export function offer(aor: string, local: MediaStream | null): string[] {
  camera = local?.getVideoTracks()[0] ?? null
  if (!camera) return []
  token = [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, '0')).join('')
  return [`Call-Info: <${aor};gr=${token}>;purpose=preview`]
}

/** Answers an INVITE to the token; every other one is refused. */
export async function show(s: RTCSession, asked: string, sdp: string) {
  const shown = camera
  const may = () => token !== '' && asked === token && shown?.readyState === 'live' && viewers.size < most
  if (!may() || !onlyWatches(sdp)) return s.terminate({ status_code: 404 })
  viewers.add(s)
  for (const event of ['ended', 'failed'] as const) s.on(event, () => viewers.delete(s))
  s.on('icecandidate', (e: { ready(): void }) => e.ready())
  s.on('confirmed', () => { void small(s.connection) })
  const pcConfig = { iceServers: [], certificates: [await certificate()] }
  if (!viewers.has(s)) return
  s.answer({ mediaStream: new MediaStream([shown!]), pcConfig })
}

/** A preview need not be as sharp as the call: it costs processor time beside it. */
async function small(pc: RTCPeerConnection) {
  const sender = pc.getSenders().find((x) => x.track)
  const p = sender?.getParameters()
  if (!p?.encodings?.length) return
  p.encodings[0].scaleResolutionDownBy = 2
  p.encodings[0].maxBitrate = 400_000
  await sender!.setParameters(p).catch(() => {}) // it ended meanwhile
}

/** The ringing has ended. */
export function end() {
  token = ''
  camera = null
  for (const s of viewers) if (!s.isEnded()) s.terminate()
  viewers.clear()
}
