// Pure: what a scanned or typed code means.

export type Code =
  | { kind: 'device'; id: string; code: string } // a new device shows it
  | { kind: 'phone'; secret: string } // an owner's window for a phone
  | { kind: 'camera'; uri: string }
  | { kind: 'none' }

/** Device: `…/add#ABCD.123456789`; phone: `…/#pair=SECRET`; typed: nine digits, perhaps with the device's four characters. */
export function meaning(text: string): Code {
  text = text.trim()
  const device = /\/add#([0-9A-Z]{4})\.(\d{9})$/i.exec(text)
  if (device) return { kind: 'device', id: device[1].toUpperCase(), code: device[2] }
  const phone = /#pair=([0-9A-Z]{26})$/.exec(text)
  if (phone) return { kind: 'phone', secret: phone[1] }
  if (/^rtsps?:\/\/\S+$/i.test(text)) return { kind: 'camera', uri: text }
  const typed = /^(?:([0-9A-Z]{4})[\s.-]+)?((?:\d[\s-]*){9})$/i.exec(text)
  if (typed) return { kind: 'device', id: (typed[1] ?? '').toUpperCase(), code: typed[2].replace(/\D/g, '') }
  return { kind: 'none' }
}
