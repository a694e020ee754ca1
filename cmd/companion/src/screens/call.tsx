import { useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import { devices, groups, persons, places, rooms } from '../home'
import { answer, camera, current, dismiss, hangUp, hold, mute, press, type PhoneCall } from '../phone'
import { Stream } from '../parts'
import { ring } from '../ring'
import { said, t } from '../text'

const known = (slug: string) => [...devices.value, ...persons.value, ...rooms.value, ...groups.value].find((x) => x.slug === slug)?.name

/** The name that people gave, for what SIP says. */
const nameOf = (slug: string) => known(slug) ?? slug

function placeOf(slug: string) {
  const d = places.value.find((x) => x.slug === slug || x.name === slug)
  return rooms.value.find((r) => r.slug === d?.room)?.name ?? ''
}

function why(c: PhoneCall): string {
  const taken = known(c.taken)
  if (taken) return t('took', { name: taken })
  if (c.why === 'Call completed elsewhere') return t('elsewhere')
  if (c.why === 'NotAllowedError') return t('notAllowed')
  if (c.why === 'NotFoundError' || c.why === 'NotReadableError') return t('notFound')
  return said(c.why)
}

/** The running, ringing or ended call, above whatever screen is open. */
export function CallScreen() {
  const c = current.value
  const at = useRef<HTMLDialogElement>(null)
  const shown = c !== null
  useEffect(() => {
    if (!shown) return
    const d = at.current!
    d.showModal()
    return () => d.close()
  }, [shown])
  const rings = c?.incoming === true && c.state === 'ringing'
  useEffect(() => (rings ? ring() : undefined), [rings])
  useEffect(() => {
    if (c?.state !== 'ended') return
    const timer = setTimeout(dismiss, 6000)
    return () => clearTimeout(timer)
  }, [c?.state])
  if (!c) return null
  return (
    <dialog ref={at} class="call" aria-labelledby="who" onCancel={(e) => { e.preventDefault(); c.state === 'ended' ? dismiss() : hangUp() }}>
      {c.state === 'ended' ? <Over of={c} /> : rings ? <Incoming of={c} /> : <Running of={c} />}
    </dialog>
  )
}

function Over({ of: c }: { of: PhoneCall }) {
  return <div class="middle" role="status"><h1 id="who">{nameOf(c.peer)}</h1><p>{t('ended')}</p><p>{why(c)}</p><button onClick={dismiss} autofocus>{t('close')}</button></div>
}

function Incoming({ of: c }: { of: PhoneCall }) {
  const name = nameOf(c.peer)
  const room = placeOf(c.peer)
  return (
    <>
      {c.preview && <Stream of={c.preview} label={t('theirPicture', { name })} quiet />}
      <div class="middle">
        <h1 id="who" role="alert">{t('ringsYou', { name })}</h1>
        {room && <p>{t('from', { room })}</p>}
        <div class="row">
          <button class="go" onClick={() => answer(true)} autofocus>{t('accept')}</button>
          <button class="go" onClick={() => answer(false)}>{t('acceptSound')}</button>
          <button class="danger" onClick={hangUp}>{t('decline')}</button>
        </div>
      </div>
    </>
  )
}

function Running({ of: c }: { of: PhoneCall }) {
  const keys = useSignal(false)
  const name = nameOf(c.peer)
  const active = c.state === 'active'
  const line = !active ? t('calling', { name }) : c.held ? t('onHold') : c.heldThere ? t('heldThere') : c.quality ? t(c.quality) : ''
  return (
    <>
      <Stream of={c.remote} label={t('theirPicture', { name })} />
      {c.local && c.camera && <Stream of={c.local} label={t('yourPicture')} quiet small />}
      <div class="bar">
        <h1 id="who">{active ? t('talking', { name }) : name}</h1>
        <p role="status">{line}</p>
        {keys.value && (
          <div class="keys" role="group" aria-label={t('keypad')}>
            {[...'123456789*0#'].map((k) => <button key={k} onClick={() => press(k)}>{k}</button>)}
          </div>
        )}
        <div class="row">
          {active && <>
            <button aria-pressed={c.muted} onClick={() => mute(!c.muted)}>{c.muted ? t('unmute') : t('mute')}</button>
            {c.hasCamera && <button aria-pressed={!c.camera} onClick={() => void camera(!c.camera)}>{c.camera ? t('cameraOff') : t('cameraOn')}</button>}
            <button aria-pressed={c.held} onClick={() => hold(!c.held)}>{c.held ? t('resume') : t('hold')}</button>
            <button aria-expanded={keys.value} onClick={() => { keys.value = !keys.value }}>{t('keypad')}</button>
          </>}
          <button class="danger" onClick={hangUp} autofocus>{t('hangUp')}</button>
        </div>
      </div>
    </>
  )
}
