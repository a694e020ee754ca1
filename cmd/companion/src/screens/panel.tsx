import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import { armed as wasArmed, live, me, places, rooms } from '../home'
import { dial, quiet, registered } from '../phone'
import { byRoom, callable, together } from '../rooms'
import { arm } from '../ring'
import { language, t } from '../text'

/** A wall panel: one tap, then for months. Whether it was tapped once outlives a reload. */
export function Panel() {
  const armed = useSignal(wasArmed())
  const sounds = useSignal(true)
  useEffect(() => {
    if (!armed.value) return
    arm().then((may) => { sounds.value = may }).catch(() => { sounds.value = false })
    return stayAwake()
  }, [armed.value])
  document.title = `${t('panel')} · Hallway`
  const start = async () => {
    sounds.value = await arm()
    try {
      // Asked for now, so that no call has to ask.
      const s = await navigator.mediaDevices.getUserMedia({ audio: true, video: true })
      for (const track of s.getTracks()) track.stop()
    } catch { /* a panel without a camera or microphone still rings and shows */ }
    localStorage.setItem('panel', 'armed')
    armed.value = true
    document.documentElement.requestFullscreen?.().catch(() => {})
  }
  if (!armed.value) return <main class="alone"><h1>{t('panel')}</h1><p>{t('armHelp')}</p><button class="go" onClick={start}>{t('arm')}</button></main>
  const ready = live.value && registered.value
  return (
    <main class="panel">
      <h1 class="hidden">{t('panel')}</h1>
      <Clock />
      <p role="status"><span class={ready ? 'state on' : 'state'}>{t(!ready ? 'notReady' : quiet.value ? 'undisturbed' : 'ready')}</span></p>
      {!sounds.value && <button class="go" onClick={async () => { sounds.value = await arm() }}>{t('tapSound')}</button>}
      <ul class="tiles">
        {byRoom(rooms.value, places.value.filter((d) => d.slug !== me.value?.person)).map(({ room, devices: list }) => {
          if (!room || !list.length) return null
          const may = registered.value && list.some(callable)
          return <li key={room.slug}><button class="tile" data-slug={room.slug} aria-disabled={!may} onClick={() => may && dial(room.slug, together(list), true)}><strong>{room.name}</strong><span class="can">{list.map((d) => d.name).join(', ')}</span></button></li>
        })}
      </ul>
    </main>
  )
}

function Clock() {
  const now = useSignal(Date.now())
  useEffect(() => {
    const timer = setInterval(() => { now.value = Date.now() }, 1000)
    return () => clearInterval(timer)
  }, [])
  return <p class="clock"><time>{new Intl.DateTimeFormat(language(), { timeStyle: 'short' }).format(now.value)}</time></p>
}

/** Keeps the screen on; the browser drops the lock whenever the page is hidden. */
function stayAwake(): () => void {
  let lock: WakeLockSentinel | null = null
  let ended = false
  const take = async () => {
    if (document.visibilityState !== 'visible' || (lock && !lock.released)) return
    try {
      const got = await navigator.wakeLock.request('screen')
      if (ended) void got.release()
      else lock = got
    } catch { /* refused on low battery; the next minute tries again */ }
  }
  void take()
  document.addEventListener('visibilitychange', take)
  const timer = setInterval(take, 60_000)
  return () => {
    ended = true
    document.removeEventListener('visibilitychange', take)
    clearInterval(timer)
    void lock?.release()
  }
}
