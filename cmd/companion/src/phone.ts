// The browser as a SIP phone. Everything that touches JsSIP is here and in preview.ts: the rest of the app sees
// `ringer`, `current` and the functions below. Its node is registrar and proxy: GET /sip
// says what to sign, a WebSocket there carries SIP, and the REGISTER's Hallway-Binding holds
// the statement that the phone's own key signed (binding.ts).
import { signal } from '@preact/signals'
import type JsSIP from 'jssip'
import type { RTCSession } from 'jssip/lib/RTCSession'
import { key, login, publicKey } from './client.js'
import { base64url, sealed, statement, toSign, unhex } from './binding'
import { certificate } from './certificate'
import { Flow } from './flow'
import { judge, read, type Quality, type Reading } from './quality'
import type { Ability } from './rooms'
import { end as endShown, offer as offerPreview, show as showPreview } from './preview'
import { previewOf, takenBy } from './sip'
import { t } from './text'
import { endNotice, notice, wake } from './wake'

export interface PhoneCall {
  peer: string // slug, or the name that the other side gave
  incoming: boolean
  state: 'ringing' | 'active' | 'ended'
  held: boolean // by us
  heldThere: boolean
  muted: boolean
  camera: boolean // our picture is sent
  hasCamera: boolean // there is a line for our picture
  local: MediaStream | null
  remote: MediaStream
  preview: MediaStream | null // what an incoming call shows before it is accepted
  since: number
  quality: Quality | ''
  why: string // it ended: the cause, or the words of the other side
  taken: string // slug of who else took it
}

export const registered = signal(false)
/** Whether this phone is not to be disturbed: it says so wherever it registers, and no node rings it. */
export const quiet = signal(localStorage.getItem('dnd') === 'on')
addEventListener('storage', (e) => { if (e.key === 'dnd') quiet.value = e.newValue === 'on' }) // set in another tab
export const current = signal<PhoneCall | null>(null)

interface Welcome { node: string; binding: string; aor: string }

let ua: JsSIP.UA | null = null
let session: RTCSession | null = null
let previewing: RTCSession | null = null
let aor = ''
let domain = ''
let through = '' // the run of a node that our calls pass
let wanted = false

function change(part: Partial<PhoneCall>) {
  if (current.value) current.value = { ...current.value, ...part }
}

async function welcome(): Promise<Welcome> {
  const ask = () => fetch('/sip', { credentials: 'same-origin', signal: AbortSignal.timeout(5000) })
  let res = await ask()
  if (res.status === 401) { // the sessions of a node end with its process
    await login()
    res = await ask()
  }
  if (!res.ok || !res.headers.get('Content-Type')?.startsWith('application/json')) throw new Error('this device serves no calls')
  return res.json()
}

async function binding(w: Welcome): Promise<string> {
  const pair = await key()
  const print = (await certificate()).getFingerprints().find((f) => f.algorithm === 'sha-256')!.value!
  const said = statement(unhex(w.node), w.binding, unhex(print.replaceAll(':', '')), BigInt(Date.now()), quiet.value, await wake())
  const signature = await crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, pair.privateKey, toSign(said))
  return base64url(sealed(await publicKey(pair), said, new Uint8Array(signature)))
}

/** Registers, and stays so until disconnect. It never gives up: a panel runs for months. */
export function connect() {
  if (wanted) return
  wanted = true
  void keep()
}

async function keep() {
  while (wanted && !ua) {
    try {
      const [w, { default: lib }] = await Promise.all([welcome(), import('jssip')])
      if (wanted) open(w, lib)
      return
    } catch {
      await new Promise((done) => setTimeout(done, 3000))
    }
  }
}

function open(w: Welcome, lib: typeof JsSIP) {
  aor = w.aor
  domain = aor.split('@')[1]
  const made = new lib.UA({
    sockets: [new Flow(welcome)], uri: w.aor, register: false, connection_recovery_min_interval: 1, connection_recovery_max_interval: 1,
  })
  ua = made
  made.on('newRTCSession', (e: { session: RTCSession; originator: string; request: { getHeader(n: string): string | undefined; ruri: { getParam(n: string): string | undefined }; body?: string } }) => {
    if (e.originator !== 'remote') return
    const gr = e.request.ruri.getParam('gr')
    if (gr !== undefined) void showPreview(e.session, gr, e.request.body ?? '')
    else arrives(e.session, e.request.getHeader('Call-Info') ?? '')
  })
  made.on('registered', () => { registered.value = true })
  made.on('unregistered', () => { registered.value = false })
  made.on('disconnected', () => {
    registered.value = false
    if (session?.isInProgress()) hangUp() // what rings, rings over one connection; a call in progress may live on
  })
  made.on('registrationFailed', () => {
    registered.value = false
    registerSoon(made)
  })
  made.on('connected', () => register(made))
  made.on('registrationExpiring', () => register(made)) // the certificate that was signed may have been replaced
  made.start()
  addEventListener('pagehide', hangUp)
}

/** Signs for the node that the flow leads to now: it may be another one than before. */
async function register(u: JsSIP.UA) {
  try {
    const w = await welcome()
    if (ua !== u || !u.isConnected()) return
    if (through && through !== w.binding) hangUp() // nobody there knows of the call any more
    through = w.binding
    u.registrator().setExtraHeaders([`Hallway-Binding: ${await binding(w)}`])
    u.register()
  } catch {
    registerSoon(u)
  }
}

export function setQuiet(on: boolean) {
  localStorage.setItem('dnd', on ? 'on' : 'off')
  quiet.value = on
  signAnew()
}

/** What this phone signs about itself has changed. */
export function signAnew() {
  if (ua?.isConnected()) void register(ua)
}

function registerSoon(u: JsSIP.UA) {
  setTimeout(() => { if (ua === u && u.isConnected()) void register(u) }, 1000)
}

export function disconnect() {
  wanted = false
  hangUp()
  removeEventListener('pagehide', hangUp)
  ua?.stop()
  ua = null
  through = ''
  registered.value = false
}

function fresh(peer: string, incoming: boolean): PhoneCall {
  return {
    peer, incoming, state: 'ringing', held: false, heldThere: false, muted: false, camera: false, hasCamera: false,
    local: null, remote: new MediaStream(), preview: null, since: Date.now(), quality: '', why: '', taken: '',
  }
}

async function options(speak: boolean, show: boolean) {
  const local = speak || show ? await navigator.mediaDevices.getUserMedia({ audio: speak, video: show && { width: { ideal: 1280 }, height: { ideal: 720 } } }) : null
  change({ local, camera: !!local?.getVideoTracks().length, hasCamera: !!local?.getVideoTracks().length })
  return {
    // JsSIP takes out of a stream, unstopped, what these constraints deny; without a stream it would open one itself.
    mediaStream: local ?? undefined, mediaConstraints: local ? {} : { audio: false, video: false },
    pcConfig: { iceServers: [], certificates: [await certificate()] },
  }
}

/** Calls a name; only what the other side can take is opened here. */
export async function dial(slug: string, can: Ability, picture: boolean) {
  if (!ua || (current.value && current.value.state !== 'ended')) return
  current.value = fresh(slug, false)
  try {
    const o = await options(can.speak, can.show && picture)
    if (!current.value || current.value.state === 'ended') return stopTracks()
    watch(ua.call(`sip:${slug}@${domain}`, { ...o, extraHeaders: offerPreview(aor, o.mediaStream ?? null), rtcOfferConstraints: { offerToReceiveAudio: can.hear, offerToReceiveVideo: can.see } }))
  } catch (e) {
    over(mediaWords(e))
  }
}

function mediaWords(e: unknown): string {
  return e instanceof DOMException ? e.name : String(e)
}

function arrives(s: RTCSession, info: string) {
  if (session || (current.value && current.value.state !== 'ended')) {
    s.terminate({ status_code: 486 })
    return
  }
  current.value = fresh(s.remote_identity.display_name || s.remote_identity.uri.user, true)
  watch(s)
  void (document.hidden ? notice(t('ringsYou', { name: current.value.peer })) : endNotice())
  const uri = previewOf(info, s.remote_identity.uri.user, s.remote_identity.uri.host)
  if (uri) void preview(uri, s)
}

/** While it rings, a call of its own shows the picture that the caller names. */
async function preview(uri: string, of: RTCSession) {
  const stream = new MediaStream()
  const pcConfig = { iceServers: [], certificates: [await certificate()] }
  if (!ua || session !== of || current.value?.state !== 'ringing') return
  const s = ua.call(uri, { mediaConstraints: { audio: false, video: false }, pcConfig, rtcOfferConstraints: { offerToReceiveAudio: false, offerToReceiveVideo: true } })
  previewing = s
  follow(s, stream)
  s.on('confirmed', () => { if (previewing === s) change({ preview: stream }) })
}

function endPreview() {
  if (previewing && !previewing.isEnded()) previewing.terminate()
  previewing = null
  change({ preview: null })
}

function follow(s: RTCSession, into: MediaStream) {
  s.on('icecandidate', (e: { ready(): void }) => e.ready()) // the first candidate is enough: it is host to host
  const listen = (pc: RTCPeerConnection) => pc.addEventListener('track', (e) => into.addTrack(e.track))
  s.on('peerconnection', (e: { peerconnection: RTCPeerConnection }) => listen(e.peerconnection))
  if (s.connection) listen(s.connection)
}

function watch(s: RTCSession) {
  session = s
  const call = current.value!
  follow(s, call.remote)
  s.on('confirmed', () => {
    endPreview()
    endShown()
    void endNotice()
    change({ state: 'active', since: Date.now() })
    measure(s)
  })
  const holds = (on: boolean) => (e: { originator: string }) => change(e.originator === 'local' ? { held: on } : { heldThere: on })
  s.on('hold', holds(true))
  s.on('unhold', holds(false))
  const ended = (e: { cause?: string; message?: unknown }) => {
    if (session !== s) return
    session = null
    endPreview()
    const said = e.message as { getHeader?(n: string): string | undefined; reason_phrase?: string } | undefined
    const header = said?.getHeader?.('Reason') ?? ''
    change({ taken: takenBy(header, domain) })
    over(/text="([^"]+)"/.exec(header)?.[1] ?? (said?.reason_phrase === 'Do Not Disturb' ? said.reason_phrase : e.cause ?? ''))
  }
  s.on('ended', ended)
  s.on('failed', ended)
}

function measure(s: RTCSession) {
  let last: Reading | null = null
  const timer = setInterval(async () => {
    if (session !== s || !s.connection) return clearInterval(timer)
    const wants = current.value?.remote.getVideoTracks().some((t) => t.readyState === 'live' && !t.muted) ?? false
    const now = read((await s.connection.getStats()).values(), performance.now(), wants)
    if (last && !current.value?.held && !current.value?.heldThere) change({ quality: judge(last, now) })
    last = now
  }, 2000)
}

function stopTracks() {
  for (const t of current.value?.local?.getTracks() ?? []) t.stop()
}

/** The one way in which a call ends here: camera and microphone are freed first. */
function over(why: string) {
  endShown()
  void endNotice()
  stopTracks()
  change({ state: 'ended', why, local: null })
}

export async function answer(picture: boolean) {
  const s = session
  if (!s || !s.isInProgress()) return
  endPreview()
  try {
    const o = await options(true, picture)
    if (session !== s) return stopTracks()
    s.answer(o)
  } catch (e) {
    hangUp()
    over(mediaWords(e))
  }
}

export function hangUp() {
  const s = session
  endPreview()
  // The library's own 480 would tell the caller that nobody answered.
  if (s && !s.isEnded()) s.terminate(s.direction === 'incoming' && s.isInProgress() ? { status_code: 603 } : undefined)
  else if (current.value && current.value.state !== 'ended') over('')
}

/** Takes an ended call off the screen. */
export function dismiss() {
  if (current.value?.state === 'ended') current.value = null
}

export function mute(on: boolean) {
  if (on) session?.mute({ audio: true })
  else session?.unmute({ audio: true })
  change({ muted: on })
}

/** Off frees the camera itself: its light goes out. */
export async function camera(on: boolean) {
  const c = current.value
  const sender = session?.connection?.getTransceivers().find((t) => t.sender.track?.kind === 'video' || (t.receiver.track.kind === 'video' && c?.hasCamera))?.sender
  if (!c?.local || !sender) return
  for (const t of c.local.getVideoTracks()) {
    t.stop()
    c.local.removeTrack(t)
  }
  let track: MediaStreamTrack | null = null
  if (on) {
    track = (await navigator.mediaDevices.getUserMedia({ video: true })).getVideoTracks()[0]
    if (current.value?.local !== c.local) return track.stop()
    c.local.addTrack(track)
  }
  await sender.replaceTrack(track)
  change({ camera: on, local: c.local })
}

export function hold(on: boolean) {
  if (on) session?.hold()
  else session?.unhold()
}

export function press(digit: string) {
  session?.sendDTMF(digit)
}
