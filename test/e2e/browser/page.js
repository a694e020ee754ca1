// What a page of the companion does as a phone, without anything to see: a key that cannot be
// exported, a signed binding, JsSIP over a WebSocket, and calls that the test asks for.
import JsSIP from 'jssip'

const hex = (b) => [...new Uint8Array(b)].map((x) => x.toString(16).padStart(2, '0')).join('')
const unhex = (s) => Uint8Array.from(s.match(/../g), (x) => parseInt(x, 16))
const base64url = (b) => btoa(String.fromCharCode(...b)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')

// store keeps key and certificate for all tabs of this browser (IndexedDB).
function store(mode, f) {
  return new Promise((done, failed) => {
    const open = indexedDB.open('phone', 1)
    open.onupgradeneeded = () => open.result.createObjectStore('kept')
    open.onerror = () => failed(open.error)
    open.onsuccess = () => {
      const r = f(open.result.transaction('kept', mode).objectStore('kept'))
      r.onsuccess = () => done(r.result)
      r.onerror = () => failed(r.error)
    }
  })
}

async function kept(name, make) {
  const old = await store('readonly', (s) => s.get(name))
  if (old) return old
  const made = await make()
  await store('readwrite', (s) => s.put(made, name))
  return made
}

const p256 = { name: 'ECDSA', namedCurve: 'P-256' }
const phone = { ended: [], heard: [], rang: 0 }
window.phone = phone

phone.ready = (async () => {
  phone.key = await kept('key', () => crypto.subtle.generateKey(p256, false, ['sign', 'verify']))
  phone.cert = await kept('cert', () => RTCPeerConnection.generateCertificate(p256))
  const raw = new Uint8Array(await crypto.subtle.exportKey('raw', phone.key.publicKey))
  phone.public = Uint8Array.of(2 + (raw[64] & 1), ...raw.slice(1, 33)) // SEC 1, compressed
  phone.id = hex(await crypto.subtle.digest('SHA-256', phone.public)).slice(0, 32)
  return phone.id
})()

phone.pair = async (person, name) => {
  await phone.ready
  const r = await fetch(`/pair?phone=${phone.id}&person=${person}&name=${name}`, { method: 'POST' })
  if (!r.ok) throw new Error(await r.text())
}

// binding is what devices/records calls the body of a binding's record: CBOR of
// {1: key, 2: statement, 3: signature}, the statement CBOR of {1: node, 2: name of the flow,
// 3: [SHA-256 of the certificate], 4: a number that grows}.
async function binding(welcome) {
  const name = new TextEncoder().encode(welcome.binding)
  const print = unhex(phone.cert.getFingerprints().find((f) => f.algorithm === 'sha-256').value.replaceAll(':', ''))
  const number = new Uint8Array(8)
  new DataView(number.buffer).setBigUint64(0, BigInt(Date.now()))
  const bytes = (b) => [0x58, b.length, ...b]
  const statement = Uint8Array.of(0xa4, 1, 0x50, ...unhex(welcome.node), 2, 0x60 + name.length, ...name, 3, 0x81, ...bytes(print), 4, 0x1b, ...number)
  const signed = Uint8Array.of(...new TextEncoder().encode('hallway-binding/1\0'), ...statement)
  const sig = new Uint8Array(await crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, phone.key.privateKey, signed))
  return base64url(Uint8Array.of(0xa3, 1, ...bytes(phone.public), 2, ...bytes(statement), 3, ...bytes(sig)))
}

// start registers as a phone of the person.
phone.start = async (person) => {
  await phone.ready
  const query = phone.query = `/sip?phone=${phone.id}&person=${person}`
  const welcome = await (await fetch(query)).json()
  const domain = welcome.aor.split('@')[1]
  phone.uri = (slug) => `sip:${slug}@${domain}`
  const ua = (phone.ua = new JsSIP.UA({
    sockets: [new JsSIP.WebSocketInterface(`wss://${location.host}${query}`)],
    uri: welcome.aor, register: false, connection_recovery_min_interval: 1, connection_recovery_max_interval: 2,
  }))
  ua.on('newRTCSession', (e) => adopt(e.session, e.originator))
  ua.on('newTransaction', () => {})
  const registered = new Promise((done, failed) => {
    ua.on('registered', () => { phone.registered = (phone.registered || 0) + 1; done() })
    ua.on('registrationFailed', (e) => failed(new Error(`registration: ${e.cause} ${e.response && e.response.status_code} ${e.response && e.response.reason_phrase}`)))
  })
  ua.on('connected', async () => {
    ua.registrator().setExtraHeaders([`Hallway-Binding: ${await binding(await (await fetch(query)).json())}`])
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
  const video = document.getElementById('theirs')
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
  const video = document.getElementById('theirs')
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
