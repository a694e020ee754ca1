// The companion as a phone, without anything to see: the app's own key, pairing, login and signed
// binding, JsSIP over a WebSocket, and calls that the test asks for.
import JsSIP from 'jssip'
import { key, login, pair, publicKey } from '../../../cmd/companion/src/client.js'
import { base64url, sealed, statement, toSign, unhex } from '../../../cmd/companion/src/binding'
import { certificate } from '../../../cmd/companion/src/certificate'

const phone = { ended: [], heard: [], rang: 0 }
window.phone = phone
const video = document.createElement('video')
video.autoplay = video.playsInline = true
document.body.append(video)

phone.pair = async (code, name) => {
  const { state } = await pair(code, name)
  if (state !== 'paired') throw new Error(`pairing: ${state}`)
}

const welcome = async () => (await fetch('/sip')).json()

async function binding(w) {
  const own = await key()
  const print = (await certificate()).getFingerprints().find((f) => f.algorithm === 'sha-256').value
  const said = statement(unhex(w.node), w.binding, unhex(print.replaceAll(':', '')), BigInt(Date.now()))
  const signature = await crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, own.privateKey, toSign(said))
  return base64url(sealed(await publicKey(own), said, new Uint8Array(signature)))
}

// start logs in and registers.
phone.start = async () => {
  phone.login = login
  phone.cert = await certificate()
  await login()
  const { aor } = await welcome()
  const domain = aor.split('@')[1]
  phone.uri = (slug) => `sip:${slug}@${domain}`
  const ua = (phone.ua = new JsSIP.UA({
    sockets: [new JsSIP.WebSocketInterface(`wss://${location.host}/sip`)],
    uri: aor, register: false, connection_recovery_min_interval: 1, connection_recovery_max_interval: 2,
  }))
  ua.on('newRTCSession', (e) => adopt(e.session, e.originator))
  const registered = new Promise((done, failed) => {
    ua.on('registered', () => { phone.registered = (phone.registered || 0) + 1; done() })
    ua.on('registrationFailed', (e) => failed(new Error(`registration: ${e.cause} ${e.response && e.response.status_code} ${e.response && e.response.reason_phrase}`)))
  })
  ua.on('connected', async () => {
    ua.registrator().setExtraHeaders([`Hallway-Binding: ${await binding(await welcome())}`])
    ua.register()
  })
  ua.start()
  await registered
}

function adopt(session, originator) {
  phone.session = session
  phone.originator = originator
  if (originator === 'remote') phone.rang++
  session.on('icecandidate', (e) => e.ready()) // the first one is enough
  session.on('peerconnection', (e) => watch(e.peerconnection))
  if (session.connection) watch(session.connection)
  session.on('progress', () => { phone.ringing = true })
  session.on('confirmed', () => { phone.confirmed = performance.now() })
  session.on('newInfo', (e) => { if (e.originator === 'remote') phone.heard.push(e.info.body) })
  session.on('newDTMF', (e) => { if (e.originator === 'remote') phone.heard.push(e.dtmf.tone) })
  session.on('hold', (e) => { phone.held = e.originator })
  session.on('unhold', (e) => { phone.held = '' })
  const over = (e) => phone.ended.push({ cause: e.cause, originator: e.originator, reason: e.message && e.message.getHeader && e.message.getHeader('reason') })
  session.on('ended', over)
  session.on('failed', over)
}

function watch(pc) {
  if (phone.pc === pc) return
  phone.pc = pc
  pc.ontrack = (e) => {
    if (!video.srcObject || video.srcObject.getTracks().every((t) => t.readyState === 'ended')) video.srcObject = new MediaStream()
    video.srcObject.addTrack(e.track)
    video.play().catch(() => {})
  }
}

const options = (picture) => ({
  mediaConstraints: picture === undefined || picture ? { audio: true, video: true } : { audio: true, video: false },
  pcConfig: { iceServers: [], certificates: [phone.cert] },
})

// warm opens camera and microphone once, as an app does that was used before.
phone.warm = async () => { phone.stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: true }) }

phone.call = (slug, picture) => {
  phone.ringing = false
  phone.tapped = performance.now()
  video.srcObject = null
  phone.first = new Promise((done) => video.requestVideoFrameCallback(() => done(performance.now() - phone.tapped)))
  const o = options(picture)
  if (phone.stream) o.mediaStream = phone.stream.clone()
  phone.ua.call(phone.uri(slug), o)
}

phone.answer = () => phone.session.answer(options())
phone.hangup = () => phone.session.terminate()

phone.state = async () => {
  const s = { ended: phone.ended, heard: phone.heard, rang: phone.rang, ringing: !!phone.ringing, held: phone.held, registered: phone.registered || 0, established: !!(phone.session && phone.session.isEstablished()), incoming: !!(phone.session && phone.originator === 'remote' && phone.session.isInProgress()), from: phone.session ? phone.session.remote_identity.uri.user : '' }
  if (phone.pc && phone.pc.connectionState !== 'closed') {
    for (const r of (await phone.pc.getStats()).values()) {
      if (r.type === 'inbound-rtp' && r.kind === 'video') { s.frames = r.framesDecoded; s.width = r.frameWidth }
      if (r.type === 'inbound-rtp' && r.kind === 'audio') { s.energy = r.totalAudioEnergy; s.audio = r.packetsReceived }
      if (r.type === 'outbound-rtp' && r.kind === 'video') s.sent = r.packetsSent
    }
  }
  return s
}
