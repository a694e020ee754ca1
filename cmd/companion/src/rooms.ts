// Pure: how devices are put in rooms, and what they can do for a person who calls them.
import type { Device, Direction, Named, Presence } from './types'

export function sorted<T extends { name: string }>(list: T[]): T[] {
  return [...list].sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }))
}

export interface Group { room: Named | null; devices: Device[] }

/** Rooms with their devices; devices without a room come last. Empty rooms are shown, too. */
export function byRoom(rooms: Named[], devices: Device[]): Group[] {
  const known = new Set(rooms.map((r) => r.slug))
  const out: Group[] = rooms.map((room) => ({ room, devices: devices.filter((d) => d.room === room.slug) }))
  const rest = devices.filter((d) => !d.room || !known.has(d.room))
  if (rest.length) out.push({ room: null, devices: rest })
  return out
}

const sends = (d: Direction) => d === 'sendrecv' || d === 'sendonly'
const receives = (d: Direction) => d === 'sendrecv' || d === 'recvonly'

export interface Ability { hear: boolean; see: boolean; speak: boolean; show: boolean }

/** What a person who calls this device can do there. */
export function ability(d: Device): Ability {
  const { audio, video } = d.capabilities
  return { hear: sends(audio.direction), see: sends(video.direction), speak: receives(audio.direction), show: receives(video.direction) }
}

export type AbilityWord = 'canTalkSee' | 'canTalk' | 'canWatch' | 'canListen' | 'canShow' | 'canPlay' | 'canNothing'

/** The ability in one word of the catalogue. */
export function abilityWord(a: Ability): AbilityWord {
  if (a.speak && a.hear) return a.see ? 'canTalkSee' : 'canTalk'
  if (a.see) return 'canWatch'
  if (a.hear) return 'canListen'
  if (a.show) return 'canShow'
  return a.speak ? 'canPlay' : 'canNothing'
}

/** Whether a call can reach it now. */
export const callable = (d: Device) => d.status === 'reachable' && !d.fault

export type PresenceWord = 'free' | 'inCall' | 'undisturbed' | 'away'

export function presenceWord(p: Presence): PresenceWord {
  return p === 'busy' ? 'inCall' : p === 'dnd' ? 'undisturbed' : p
}

export type StateWord = PresenceWord | 'reachable' | 'unreachable' | 'neverSeen' | 'present'

/** What a device does now, in one word of the catalogue. */
export function stateWord(d: Device): StateWord {
  if (d.status === 'never seen') return 'neverSeen'
  if (d.status === 'unreachable') return 'unreachable'
  if (d.presence === 'busy' || d.presence === 'dnd') return presenceWord(d.presence)
  return d.status === 'reachable' ? 'reachable' : 'present'
}

/** Everything that the devices behind one name can do together. */
export function together(list: Device[]): Ability {
  const all = list.map(ability)
  const any = (f: (a: Ability) => boolean) => all.some(f)
  return { hear: any((a) => a.hear), see: any((a) => a.see), speak: any((a) => a.speak), show: any((a) => a.show) }
}
