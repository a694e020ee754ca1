import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import { api, persons, refresh } from '../home'
import { Field, RoomChoice, Trouble, useTask } from '../parts'
import { QR } from '../qr'
import { t } from '../text'
import type { PhoneWindow } from '../types'

/** Opens a window for one phone, of somebody new or of a person of the home. */
export function Invite() {
  const person = useSignal('')
  const name = useSignal('')
  const role = useSignal('member')
  const until = useSignal('')
  const room = useSignal('')
  const win = useSignal<PhoneWindow | null>(null)
  const { busy, failed, run } = useTask()
  const state = win.value?.state
  useEffect(() => {
    if (state !== 'open' && state !== 'waiting') return
    const timer = setInterval(() => run(async () => { win.value = await api<PhoneWindow>('GET', '/phones/window') }), 1000)
    return () => clearInterval(timer)
  }, [state])
  useEffect(() => { if (state === 'paired') void refresh() }, [state])
  const open = () => run(async () => {
    const asked = person.value ? { person: person.value } : { name: name.value, role: role.value, room: room.value, ...(role.value === 'guest' && until.value ? { until: new Date(until.value).toISOString() } : {}) }
    win.value = await api<PhoneWindow>('POST', '/phones/window', asked)
  })
  const confirm = (accept: boolean) => run(async () => {
    await api('POST', '/phones/window/confirm', { accept })
    win.value = await api<PhoneWindow>('GET', '/phones/window')
  })
  const close = () => run(async () => {
    if (state === 'open' || state === 'waiting') await api('DELETE', '/phones/window')
    win.value = null
  })
  return (
    <section class="invite" aria-label={t('invite')}>
      <h2>{t('invite')}</h2>
      {!win.value ? (
        <form onSubmit={(e) => { e.preventDefault(); void open() }}>
          <Field label={t('who')}>
            <select value={person.value} onChange={(e) => { person.value = e.currentTarget.value }}>
              <option value="">{t('invite')}</option>
              {persons.value.map((p) => <option key={p.slug} value={p.slug}>{`${p.name}: ${t('invitePhone')}`}</option>)}
            </select>
          </Field>
          {!person.value && <>
            <Field label={t('itsName')}><input name="person" value={name.value} maxLength={64} required onInput={(e) => { name.value = e.currentTarget.value }} /></Field>
            <Field label={t('role')}>
              <select value={role.value} onChange={(e) => { role.value = e.currentTarget.value }}>{(['member', 'guest', 'owner'] as const).map((r) => <option key={r} value={r}>{t(r)}</option>)}</select>
            </Field>
            {role.value === 'guest' && <Field label={t('until')}><input type="datetime-local" value={until.value} onInput={(e) => { until.value = e.currentTarget.value }} /></Field>}
            <RoomChoice room={room} hint={t('panelRoom')} />
          </>}
          <button class="go" disabled={busy.value}>{t('makeInvite')}</button>
        </form>
      ) : (
        <div role="status">
          {state === 'open' && <>
            <p>{t('inviteShow', { host: location.host })}</p>
            {win.value.url && <QR of={win.value.url} label={t('qr')} />}
            <p class="words">{win.value.code}</p>
          </>}
          {state === 'waiting' && <>
            <p>{t('inviteWaits', { phone: win.value.phone ?? '', words: win.value.words ?? '' })}</p>
            <div class="row"><button class="go" onClick={() => confirm(true)}>{t('letIn')}</button><button class="danger" onClick={() => confirm(false)}>{t('refuse')}</button></div>
          </>}
          {state === 'paired' && <p>{t('invitePaired', { name: win.value.person ?? '' })}</p>}
          {(state === 'closed' || state === 'refused') && <p>{t('inviteClosed')}</p>}
          <div class="row"><button onClick={close}>{t('close')}</button></div>
        </div>
      )}
      <Trouble of={failed} />
    </section>
  )
}
