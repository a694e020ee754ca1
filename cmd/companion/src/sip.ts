// Pure: what the app reads in headers of SIP.

/** Who else took a call, as a name of this home, by the parameter of a Reason (RFC 3326); else ''. */
export function takenBy(reason: string, domain: string): string {
  const [, user, host] = /cause=200;.*;by="sip:([a-z0-9-]+)@([^"]+)"/.exec(reason) ?? []
  return user && host === domain ? user : ''
}
