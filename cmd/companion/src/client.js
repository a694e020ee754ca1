// The companion's way in: this browser's key, pairing by a window's secret or code, login,
// and the API. It draws nothing and needs no library.
//
// The key is made by WebCrypto and cannot be taken out of the browser; IndexedDB keeps the
// handle. Formats: ../../hallway/internal/api/phones.go.
// @ts-check

const enc = new TextEncoder()

/** A problem of the API (RFC 9457), in words for people. */
class Problem extends Error {
  /** @param {number} status @param {string} words */
  constructor(status, words) {
    super(words)
    this.status = status
  }
}

/** @param {ArrayBuffer | Uint8Array} b */
function base64(b) {
  return btoa(String.fromCharCode(...new Uint8Array(b)))
}

/** @param {Uint8Array[]} parts */
function concat(...parts) {
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0))
  let at = 0
  for (const p of parts) {
    out.set(p, at)
    at += p.length
  }
  return out
}

/** @returns {Promise<IDBDatabase>} */
function database() {
  return new Promise((resolve, reject) => {
    const open = indexedDB.open('hallway', 1)
    open.onupgradeneeded = () => open.result.createObjectStore('keys')
    open.onsuccess = () => resolve(open.result)
    open.onerror = () => reject(open.error)
  })
}

/** @template T @param {IDBTransactionMode} mode @param {(s: IDBObjectStore) => IDBRequest<T>} f @returns {Promise<T>} */
async function stored(mode, f) {
  const db = await database()
  try {
    return await new Promise((resolve, reject) => {
      const tx = db.transaction('keys', mode, { durability: 'strict' })
      const request = f(tx.objectStore('keys'))
      tx.oncomplete = () => resolve(request.result)
      tx.onabort = tx.onerror = () => reject(tx.error)
    })
  } finally {
    db.close()
  }
}

/**
 * This browser's key; made when there is none. The lock keeps two tabs that are opened at
 * once from making one each.
 * @returns {Promise<CryptoKeyPair>}
 */
async function key() {
  return navigator.locks.request('hallway-key', async () => {
    const old = await stored('readonly', (s) => s.get('phone'))
    if (old) return old
    const made = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign', 'verify'])
    await stored('readwrite', (s) => s.put(made, 'phone'))
    void navigator.storage?.persist?.()
    return made
  })
}

/** Forgets the key: the next pairing makes a new one. */
async function forget() {
  await stored('readwrite', (s) => s.clear())
}

/** The public key, compressed (SEC 1, 2.3.3). @param {CryptoKeyPair} pair */
async function publicKey(pair) {
  const raw = new Uint8Array(await crypto.subtle.exportKey('raw', pair.publicKey))
  return concat(new Uint8Array([2 + (raw[64] & 1)]), raw.slice(1, 33))
}

/** @param {ArrayBuffer | Uint8Array} b */
const base64url = (b) => base64(b).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')

/** @param {string} text @returns {Promise<Uint8Array>} */
async function sign(text) {
  const pair = await key()
  return new Uint8Array(await crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, pair.privateKey, enc.encode(text)))
}

/**
 * What the key signs so that an owner's device does what the device that serves this page may not
 * (../../hallway/internal/web/wish.go): this request and no other, once, there.
 * @param {string} home @param {string} owner @param {string} challenge @param {string} method @param {string} path @param {string} body
 */
async function wishStatement(home, owner, challenge, method, path, body) {
  const sum = new Uint8Array(await crypto.subtle.digest('SHA-256', enc.encode(body)))
  return ['hallway-wish/1', home, owner, challenge, method, path, [...sum].map((x) => x.toString(16).padStart(2, '0')).join('')].join('\0')
}

const asksForWish = /^Hallway-Wish home="([0-9a-f]{32})", owner="([0-9a-f]{32})", challenge="([\w-]{54})"$/

let csrf = ''

/**
 * One request of the API. Without a session it logs in by the key and asks again; a device that must
 * ask an owner's is given the key's signature.
 * @param {string} method @param {string} path @param {unknown} [body] @param {boolean} [again] @param {string} [signed]
 * @returns {Promise<any>}
 */
async function call(method, path, body, again = true, signed = '') {
  /** @type {Record<string, string>} */
  const headers = {}
  if (method !== 'GET') headers['X-CSRF-Token'] = csrf
  if (body !== undefined) headers['Content-Type'] = 'application/json'
  if (signed) headers.Authorization = signed
  const sent = body === undefined ? '' : JSON.stringify(body)
  // A connection to a node without power hangs; browsers have six of them for all requests.
  const quick = path.startsWith('/session') || (method === 'GET' && path !== '/doctor')
  const signal = quick ? AbortSignal.timeout(5000) : undefined
  const res = await fetch('/api/v1' + path, { method, headers, body: sent || undefined, credentials: 'same-origin', signal })
  if (res.ok) return res.status === 204 ? null : res.json()
  const asked = signed ? null : asksForWish.exec(res.headers.get('WWW-Authenticate') ?? '')
  if (asked) {
    const [, home, owner, challenge] = asked
    const signature = await sign(await wishStatement(home, owner, challenge, method, new URL(res.url).pathname, sent))
    return call(method, path, body, again, `Hallway-Wish owner="${owner}", challenge="${challenge}", signature="${base64url(signature)}"`)
  }
  if (again && res.status === 401 && !path.startsWith('/session')) {
    await login()
    return call(method, path, body, false)
  }
  const problem = await res.json().catch(() => ({}))
  throw new Problem(res.status, problem.detail ?? res.statusText)
}

/** @typedef {{person: string, name: string, role: string, phone: string, csrf: string}} Session */

/**
 * Logs in by the key, unless the browser has a session, which all its tabs share. The lock keeps two
 * tabs from making one each: the second would be refused for not having the token of the first.
 * @returns {Promise<Session>}
 */
async function login() {
  return navigator.locks.request('hallway-login', async () => {
    const open = await call('GET', '/session', undefined, false).catch((e) => {
      if (!(e instanceof Problem)) throw e // nobody answers: the next question would hang as long
    })
    const session = open ?? (await enter())
    csrf = session.csrf
    return session
  })
}

/** @returns {Promise<Session>} */
async function enter() {
  const pair = await key()
  const { challenge, home } = await call('POST', '/session/challenge', undefined, false)
  const signature = await sign(['hallway-login/1', location.host, home, challenge].join('\0'))
  return call('POST', '/session', { key: base64(await publicKey(pair)), challenge, signature: base64(signature) }, false)
}

/** Logs out. */
async function logout() {
  await call('DELETE', '/session', undefined, false)
  csrf = ''
}

/** The secret of a QR code's URL, taken out of the address bar; null: none. */
function secretOfURL() {
  const found = /^#pair=([0-9A-Z]{26})(?:&name=|$)/.exec(location.hash)
  if (!found) return null
  history.replaceState(null, '', location.pathname)
  return found[1]
}

/**
 * Shows this browser at a window, once. "waiting": a person must confirm it there; ask again.
 * @param {string} secret of a QR code, or the digits of a typed code @param {string} name of this phone
 * @returns {Promise<{state: 'waiting' | 'paired', words: string}>}
 */
async function pair(secret, name) {
  name = name.trim()
  const typed = secret.replace(/[\s-]/g, '')
  const mine = await publicKey(await key())
  const mac = await crypto.subtle.importKey('raw', enc.encode(typed), { name: 'HMAC', hash: 'SHA-256' }, false, ['sign'])
  const proof = await crypto.subtle.sign('HMAC', mac, concat(enc.encode('hallway-phone/1\0'), mine, enc.encode(name)))
  return call('POST', '/phones', { key: base64(mine), name, proof: base64(proof) }, false)
}

/**
 * Follows what changes in the home. It reconnects by itself; on a lost session it logs in.
 * @param {(event: any) => void} each @param {(connected: boolean) => void} [state]
 * @returns {() => void} ends it
 */
function events(each, state = () => {}) {
  const silence = 5000 // the node says every 2 s that it lives
  let source = /** @type {EventSource | null} */ (null)
  let timer = 0
  let ended = false
  const again = async () => {
    clearTimeout(timer)
    source?.close()
    state(false)
    await login().catch(() => {})
    if (!ended) timer = setTimeout(open, 500)
  }
  const heard = () => {
    clearTimeout(timer)
    timer = setTimeout(again, silence)
  }
  const open = () => {
    source = new EventSource('/api/v1/events')
    source.addEventListener('event', (e) => (heard(), each(JSON.parse(e.data))))
    source.addEventListener('alive', heard)
    source.onopen = () => (heard(), state(true))
    source.onerror = again
    heard()
  }
  open()
  return () => {
    ended = true
    clearTimeout(timer)
    source?.close()
  }
}

export { Problem, call, events, forget, key, login, logout, pair, publicKey, secretOfURL, stored, wishStatement }
