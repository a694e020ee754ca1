// How a phone whose page is closed learns that somebody calls: Web Push without content, off until its person wants
// it. The key to which the subscription is bound (VAPID) is made here and goes to the home's devices in the binding
// that the phone signs (binding.ts); sw.js shows the notice.
import { signal } from '@preact/signals'
import { stored } from './client.js'
import { t } from './text'

export interface Wake { endpoint: string; key: Uint8Array }

interface Kept { secret: Uint8Array; public: Uint8Array<ArrayBuffer> }

/** Whether this browser can do it at all; one on an iPhone only once the app is on the home screen. */
export const wakeable = 'serviceWorker' in navigator && 'PushManager' in window && 'Notification' in window
/** Whether this phone is woken. */
export const woken = signal(false)

const longest = 400 // bytes of an endpoint, as devices/records takes it

const kept = (): Promise<Kept | undefined> => stored('readonly', (s) => s.get('wake'))

async function worker(): Promise<ServiceWorkerRegistration> {
  await navigator.serviceWorker.register('/sw.js?' + new URLSearchParams({ words: t('somebodyCalls') }))
  return navigator.serviceWorker.ready
}

/** The subscription under that key: the one that stands, or a new one. */
async function subscribe(k: Kept): Promise<Wake> {
  const manager = ((await navigator.serviceWorker.getRegistration()) ?? (await worker())).pushManager
  const { endpoint } = (await manager.getSubscription()) ?? (await manager.subscribe({ userVisibleOnly: true, applicationServerKey: k.public }))
  if (endpoint.length > longest) throw new Error(t('wakeNot'))
  return { endpoint, key: k.secret }
}

/** What the home needs to wake this phone; null: it is not to be woken, or cannot be any more. */
export async function wake(): Promise<Wake | null> {
  let found: Wake | null = null
  try {
    const k = wakeable ? await kept() : undefined
    if (k && Notification.permission === 'granted') found = await subscribe(k)
  } catch { /* the browser's service does not answer: the next registration tries again */ }
  woken.value = !!found
  return found
}

export async function turnOn() {
  if ((await Notification.requestPermission()) !== 'granted') throw new Error(t('wakeDenied'))
  const pair = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign'])
  const { d } = await crypto.subtle.exportKey('jwk', pair.privateKey)
  const secret = Uint8Array.from(atob(d!.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0))
  const made: Kept = { secret, public: new Uint8Array(await crypto.subtle.exportKey('raw', pair.publicKey)) }
  await (await (await worker()).pushManager.getSubscription())?.unsubscribe() // it is bound to an older key
  await subscribe(made)
  await stored('readwrite', (s) => s.put(made, 'wake'))
  woken.value = true
}

export async function turnOff() {
  woken.value = false
  await stored('readwrite', (s) => s.delete('wake'))
  const r = await navigator.serviceWorker?.getRegistration()
  await (await r?.pushManager.getSubscription())?.unsubscribe()
  await r?.unregister()
}

/** Shows a call to somebody who does not see the page. */
export async function notice(words: string) {
  if (woken.value && document.hidden) await (await navigator.serviceWorker.ready).showNotification('Hallway', { body: words, tag: 'call', requireInteraction: true })
}

/** Takes the notice away: the call is on the screen, or over. */
export async function endNotice() {
  if (!woken.value) return
  for (const n of (await (await navigator.serviceWorker.getRegistration())?.getNotifications({ tag: 'call' })) ?? []) n.close()
}
