import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import { CodeInput } from '../code'
import { meaning, type Code } from '../codes'
import { api, owner, refresh, sighted } from '../home'
import { Field, RoomChoice, Trouble, useTask } from '../parts'
import { t } from '../text'
import type { Candidate, Foreign } from '../types'

let fromURL = meaning(location.href) // a new device's QR code opens the app here
if (fromURL.kind === 'device') history.replaceState(null, '', location.pathname)

/** Where a camera in sight could be asked for its picture; its owner knows path and password. */
function guess(f: Foreign): string {
  const at = f.addrs?.[0] ?? ''
  return f.kinds?.includes('_rtsp._tcp') ? `rtsp://${at}/` : `rtsp://${at.replace(/:\d+$/, '')}/`
}

export function Add() {
  const found = useSignal<Code>(fromURL)
  const name = useSignal('')
  const room = useSignal('')
  const done = useSignal('')
  const candidate = useSignal<Candidate | null>(null)
  const { busy, failed, run } = useTask()
  useEffect(() => {
    const c = found.value
    if (c.kind !== 'device' || !owner.value) return
    void run(async () => {
      try {
        const is = await api<Candidate>('POST', '/add/identify', { code: c.code, id: c.id })
        name.value = is.name
        room.value = is.room ?? ''
        candidate.value = is
      } catch (e) {
        found.value = { kind: 'none' }
        throw e
      }
    })
  }, [found.value])
  if (!owner.value) return <><h1>{t('addTitle')}</h1><p>{t('ownersOnly')}</p></>
  const clear = () => {
    found.value = { kind: 'none' }
    name.value = room.value = failed.value = done.value = ''
    candidate.value = null
  }
  const add = () => run(async () => {
    const c = found.value
    const about = { name: name.value, room: room.value }
    const made = c.kind === 'camera'
      ? await api<{ name: string }>('POST', '/home/cameras', { uri: c.uri, ...about })
      : await api<{ name: string }>('POST', '/add', { code: c.kind === 'device' ? c.code : '', id: c.kind === 'device' ? c.id : '', ...about })
    done.value = made.name
    fromURL = { kind: 'none' }
    await refresh()
  })
  if (done.value) {
    return <><h1>{t('addTitle')}</h1><p role="status" class="notice">{t('added', { name: done.value })}</p><button class="go" onClick={clear}>{t('again')}</button></>
  }
  const c = found.value
  const is = candidate.value
  if (c.kind === 'device' && !is) return <><h1>{t('addTitle')}</h1><p role="status">{t('identifying')}</p></>
  if (c.kind === 'device' || c.kind === 'camera') {
    return (
      <>
        <h1>{t('addTitle')}</h1>
        <p role="status">{c.kind === 'device' && is ? `${t('isDevice', { is: is.is, name: is.name })} · ${is.id} · ${is.version}` : t('isCamera')}</p>
        <form onSubmit={(e) => { e.preventDefault(); void add() }}>
          {c.kind === 'camera' && <Field label={t('uri')} hint={t('uriHint')}><input name="uri" value={c.uri} required pattern="rtsps?://.+" maxLength={320} onInput={(e) => { found.value = { kind: 'camera', uri: e.currentTarget.value } }} /></Field>}
          <Field label={t('itsName')}><input name="name" value={name.value} maxLength={64} required={c.kind === 'camera'} onInput={(e) => { name.value = e.currentTarget.value }} /></Field>
          <RoomChoice room={room} />
          <div class="row"><button class="go" disabled={busy.value}>{busy.value ? t('working') : t('add')}</button><button type="button" onClick={clear}>{t('back')}</button></div>
        </form>
        <Trouble of={failed} />
      </>
    )
  }
  return (
    <>
      <h1>{t('addTitle')}</h1>
      <p>{t('addIntro')}</p>
      <CodeInput accepts={['device', 'camera']} onCode={(x) => { found.value = x }} />
      <Trouble of={failed} />
      <h2>{t('inSight')}</h2>
      {sighted.value.length === 0 && <p class="none">{t('nothingInSight')}</p>}
      <ul class="list">
        {sighted.value.map((f) => (
          <li key={f.id}>
            <span><strong>{f.name}</strong> <small>{f.is}</small></span>
            {/camera/i.test(f.is) && <button onClick={() => { found.value = { kind: 'camera', uri: guess(f) }; name.value = f.name }}>{t('addCamera')}</button>}
          </li>
        ))}
      </ul>
      <button onClick={() => { found.value = { kind: 'camera', uri: 'rtsp://' } }}>{t('addCamera')}</button>
    </>
  )
}
