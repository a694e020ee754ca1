// Pure: the statement by which a phone says at which node it is reached and which DTLS
// certificates are its own. Deterministic CBOR, as devices/records reads it:
// {1: key, 2: statement, 3: signature}; the statement is {1: node, 2: name of the flow,
// 3: [SHA-256 of the certificate], 4: a number that grows, where its person does not want to be
// disturbed, 5: true, and where it can be woken, 6: {1: URL at the push service, 2: the key for it}}.

export const context = 'hallway-binding/1\0'

export function unhex(s: string): Uint8Array {
  return Uint8Array.from(s.match(/../g) ?? [], (x) => parseInt(x, 16))
}

export function base64url(b: Uint8Array): string {
  return btoa(String.fromCharCode(...b)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
}

/** Head of a CBOR item: major type and length (RFC 8949, 3). */
function head(major: number, n: number): number[] {
  if (n > 65535) throw new RangeError('longer than a binding ever is')
  if (n > 255) return [(major << 5) | 25, n >> 8, n & 255]
  return n < 24 ? [(major << 5) | n] : [(major << 5) | 24, n]
}

const bytes = (b: Uint8Array) => [...head(2, b.length), ...b]

function text(s: string): number[] {
  const b = new TextEncoder().encode(s)
  return [...head(3, b.length), ...b]
}

export function statement(node: Uint8Array, flow: string, fingerprint: Uint8Array, number: bigint, quiet = false, wake: { endpoint: string; key: Uint8Array } | null = null): Uint8Array {
  const eight = new Uint8Array(8)
  new DataView(eight.buffer).setBigUint64(0, number)
  const fields = [[1, ...bytes(node)], [2, ...text(flow)], [3, 0x81, ...bytes(fingerprint)], [4, 0x1b, ...eight]]
  if (quiet) fields.push([5, 0xf5])
  if (wake) fields.push([6, 0xa2, 1, ...text(wake.endpoint), 2, ...bytes(wake.key)])
  return Uint8Array.of(...head(5, fields.length), ...fields.flat())
}

/** What the phone's key signs. */
export function toSign(said: Uint8Array): Uint8Array<ArrayBuffer> {
  return Uint8Array.of(...new TextEncoder().encode(context), ...said)
}

export function sealed(key: Uint8Array, said: Uint8Array, signature: Uint8Array): Uint8Array {
  return Uint8Array.of(0xa3, 1, ...bytes(key), 2, ...bytes(said), 3, ...bytes(signature))
}
