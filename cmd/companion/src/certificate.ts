// The DTLS certificate that this browser signs for: one for all tabs, kept in IndexedDB.

const days = 24 * 60 * 60 * 1000

function kept<T>(mode: IDBTransactionMode, f: (s: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  return new Promise((done, failed) => {
    const open = indexedDB.open('hallway-media', 1)
    open.onupgradeneeded = () => open.result.createObjectStore('certificates')
    open.onerror = () => failed(open.error)
    open.onsuccess = () => {
      const tx = open.result.transaction('certificates', mode)
      const r = f(tx.objectStore('certificates'))
      tx.oncomplete = () => { open.result.close(); done(r.result) }
      tx.onabort = tx.onerror = () => { open.result.close(); failed(tx.error) }
    }
  })
}

let made: RTCCertificate | null = null

/** It is made anew a week before its end. The lock keeps two tabs from making one each. */
export async function certificate(): Promise<RTCCertificate> {
  const good = (c: RTCCertificate | null | undefined) => !!c && c.expires > Date.now() + 7 * days
  if (good(made)) return made!
  return navigator.locks.request('hallway-certificate', async () => {
    made = await kept<RTCCertificate>('readonly', (s) => s.get('dtls'))
    if (good(made)) return made!
    const wish = { name: 'ECDSA', namedCurve: 'P-256', expires: 300 * days }
    const fresh = (made = await RTCPeerConnection.generateCertificate(wish as EcKeyGenParams))
    await kept('readwrite', (s) => s.put(fresh, 'dtls'))
    return fresh
  })
}
