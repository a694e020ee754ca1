// Pure: what the app reads in headers of SIP.

/** Who else took a call, as a name of this home, by the parameter of a Reason (RFC 3326); else ''. */
export function takenBy(reason: string, domain: string): string {
  const [, user, host] = /cause=200;.*;by="sip:([a-z0-9-]+)@([^"]+)"/.exec(reason) ?? []
  return user && host === domain ? user : ''
}

/** The picture that a caller names (Call-Info, purpose=preview), if it is its own, by a token; else ''. */
export function previewOf(info: string, user: string, host: string): string {
  const [, uri, of, at] = /<(sip:([a-z0-9-]+)@([^;>]+);gr=[0-9a-f]{32,64})>\s*;\s*purpose=preview/.exec(info) ?? []
  return uri && of === user && at === host ? uri : ''
}

/** Whether an offer wants a picture, and gives or asks nothing else. */
export function onlyWatches(sdp: string): boolean {
  const media = sdp.split(/^m=/m).slice(1)
  return media.length === 1 && media[0].startsWith('video ') && /^a=recvonly\r?$/m.test(media[0])
}
