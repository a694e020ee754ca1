// What the app knows of the home, kept current by the event stream. Screens read signals;
// only this module writes them.
import { computed, signal } from '@preact/signals'
import { Problem, call as request, events, forget as forgetKey, login, logout } from './client.js'
import { sorted } from './rooms'
import { connect, disconnect } from './phone'
import { turnOff } from './wake'
import type { CallInfo, Device, Foreign, Home, Named, Person, Session } from './types'

/** starting: not known yet; out: this browser is no phone of the home; in: logged in. */
export const phase = signal<'starting' | 'out' | 'in'>('starting')
export const me = signal<Session | null>(null)
export const live = signal(false)
export const devices = signal<Device[]>([])
export const panels = signal<Device[]>([]) // browsers that live in a room
export const places = computed(() => sorted([...devices.value, ...panels.value])) // what is in the rooms
export const sighted = signal<Foreign[]>([])
export const rooms = signal<Named[]>([])
export const groups = signal<Named[]>([])
export const persons = signal<Person[]>([])
export const home = signal<Home | null>(null)
export const calls = signal<CallInfo[]>([])
export const serving = signal('') // the device that answers us

export const owner = computed(() => me.value?.role === 'owner')
export const member = computed(() => owner.value || me.value?.role === 'member')

/** One request of the API; a session that another tab replaced is opened anew. */
export async function api<T = unknown>(method: string, path: string, body?: unknown): Promise<T> {
  try {
    return await request(method, path, body)
  } catch (e) {
    if (!(e instanceof Problem) || e.status !== 403 || !e.message.includes('X-CSRF-Token')) throw e
    me.value = await login()
    return request(method, path, body)
  }
}

/** Reads everything anew; the stream tells only that something changed. */
export async function refresh() {
  await readHouse()
  await readMore()
}

/** What the first screen shows. */
async function readHouse() {
  const [d, r, status] = await Promise.all([
    api<{ devices: Device[]; adopted: Device[]; panels?: Device[]; foreign: Foreign[] }>('GET', '/devices'),
    api<{ rooms: Named[]; groups: Named[]; persons: Person[] }>('GET', '/rooms'),
    api<{ name: string }>('GET', '/status'),
  ])
  devices.value = sorted([...d.devices, ...d.adopted])
  panels.value = d.panels ?? [] // a device with an older version knows none
  sighted.value = sorted(d.foreign)
  rooms.value = sorted(r.rooms)
  groups.value = sorted(r.groups)
  persons.value = sorted(r.persons)
  serving.value = status.name
}

async function readMore() {
  if (!member.value) return
  const [h, c] = await Promise.all([api<Home>('GET', '/home'), api<CallInfo[]>('GET', '/calls')])
  home.value = h
  calls.value = c
}

let waiting = 0
/** Several changes at once cost one reading. */
function refreshSoon() {
  if (waiting) return
  waiting = window.setTimeout(() => {
    waiting = 0
    refresh().catch(() => refused())
  }, 100)
}

/** After a failure: was it the way, or are we no longer of this home? */
async function refused() {
  try {
    me.value = await login()
  } catch (e) {
    if (e instanceof Problem && (e.status === 401 || e.status === 403)) waitOutside()
  }
}

let stop = () => {}

function leave() {
  stop()
  disconnect()
  me.value = null
  phase.value = 'out'
}

/**
 * A panel asks nobody: a device that refuses it may not know it yet, and the next one, or the same one
 * a moment later, does.
 */
function waitOutside() {
  leave()
  if (armed()) setTimeout(() => { if (phase.value === 'out') void start() }, 10_000)
}

/** Logs in and follows the home; it tries for ever while no device answers. */
export async function start() {
  for (;;) {
    try {
      me.value = await login()
      await readHouse()
      break
    } catch (e) {
      if (e instanceof Problem && (e.status === 401 || e.status === 403)) return waitOutside()
      await new Promise((done) => setTimeout(done, 1000))
    }
  }
  phase.value = 'in'
  stop = events(() => refreshSoon(), (up) => {
    live.value = up
    if (up) {
      performance.clearMarks('live')
      performance.mark('live')
      refreshSoon()
    } else void refused()
  })
  connect()
}

export async function signOut() {
  await turnOff().catch(() => {}) // who has signed out is not called
  await logout().catch(() => {}) // the session ends by itself, too
  leave()
}

/** Whether this browser was made a panel by a tap; it outlives a reload. */
export const armed = () => localStorage.getItem('panel') === 'armed'

/** Signs out and throws the key away: the phone must be paired again. */
export async function forgetPhone() {
  await signOut()
  localStorage.removeItem('panel')
  await forgetKey()
}
