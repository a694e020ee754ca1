// Pure: "is my home safe?", as findings for people. Each names what it saw.
import type { Check, Device, Home, Person } from './types'

export type Finding =
  | { level: 'ok' | 'warn'; key: 'safeOwners' | 'safeOneOwner' | 'safePlain' | 'safeNoPlain' | 'safeDropIn' | 'safeNoDropIn' | 'safeRemovals' | 'safeUnseen' | 'safeGuests' | 'safePush'; names: string[] }
  | { level: 'ok' | 'warn' | 'fail'; words: string; advice?: string }

export function safety(home: Home, devices: Device[], persons: Person[], checks: Check[]): Finding[] {
  const out: Finding[] = []
  const owners = [...home.members, ...persons].filter((m) => m.role === 'owner').map((m) => m.name)
  out.push(owners.length > 1 ? { level: 'ok', key: 'safeOwners', names: owners } : { level: 'warn', key: 'safeOneOwner', names: owners })
  const plain = devices.filter((d) => d.foreign).map((d) => d.name)
  out.push(plain.length ? { level: 'warn', key: 'safePlain', names: plain } : { level: 'ok', key: 'safeNoPlain', names: [] })
  const dropIn = home.rules.filter((r) => r.right === 'dropin' && r.who?.length).map((r) => r.subject)
  out.push(dropIn.length ? { level: 'warn', key: 'safeDropIn', names: dropIn } : { level: 'ok', key: 'safeNoDropIn', names: [] })
  const unseen = devices.filter((d) => d.status === 'never seen').map((d) => d.name)
  if (unseen.length) out.push({ level: 'warn', key: 'safeUnseen', names: unseen })
  if (home.proposals.length) out.push({ level: 'warn', key: 'safeRemovals', names: home.proposals.map((p) => p.target) })
  const forever = persons.filter((p) => p.role === 'guest' && !p.until).map((p) => p.name)
  if (forever.length) out.push({ level: 'warn', key: 'safeGuests', names: forever })
  const woken = persons.filter((p) => p.wakes_by?.length).map((p) => `${p.name} (${p.wakes_by!.join(', ')})`)
  if (woken.length) out.push({ level: 'warn', key: 'safePush', names: woken })
  for (const c of checks) {
    if (c.level === 'warn' || c.level === 'fail') out.push({ level: c.level, words: c.words, advice: c.advice })
  }
  return out
}
