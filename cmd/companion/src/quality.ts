// Pure: what two readings of getStats say about a call, in one of four words.

export interface Reading { at: number; packets: number; lost: number; frames: number; roundTrip: number; wantsPicture: boolean }
export type Quality = 'good' | 'fair' | 'poor' | 'silent'

/** Sums what a report says of what comes in. */
export function read(report: Iterable<Record<string, unknown>>, at: number, wantsPicture: boolean): Reading {
  const r: Reading = { at, packets: 0, lost: 0, frames: 0, roundTrip: 0, wantsPicture }
  const number = (x: unknown) => (typeof x === 'number' ? x : 0)
  for (const s of report) {
    if (s.type === 'inbound-rtp') {
      r.packets += number(s.packetsReceived)
      r.lost += number(s.packetsLost)
      if (s.kind === 'video') r.frames += number(s.framesDecoded)
    }
    if (s.type === 'candidate-pair' && s.nominated) r.roundTrip = number(s.currentRoundTripTime)
  }
  return r
}

/**
 * Judges the time between two readings. Bounds: above 5 % of loss speech suffers audibly
 * (ITU-T G.113), above 400 ms of round trip people interrupt each other (G.114), below 10
 * pictures a second movement stutters.
 */
export function judge(a: Reading, b: Reading): Quality {
  const packets = b.packets - a.packets
  if (packets <= 0) return 'silent'
  const loss = Math.max(0, b.lost - a.lost) / (packets + Math.max(0, b.lost - a.lost))
  const rate = ((b.frames - a.frames) * 1000) / Math.max(1, b.at - a.at)
  const stutters = b.wantsPicture && a.frames > 0
  if (loss > 0.05 || b.roundTrip > 0.4 || (stutters && rate < 4)) return 'poor'
  if (loss > 0.01 || b.roundTrip > 0.2 || (stutters && rate < 10)) return 'fair'
  return 'good'
}
