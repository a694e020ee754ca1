import { useSignal, type Signal } from '@preact/signals'
import { api, devices, home, owner, persons, refresh, rooms } from '../home'
import { Ask, Field, RoomChoice, Trouble, useTask } from '../parts'
import { safety, type Finding } from '../safety'
import { t, when, type Key } from '../text'
import type { Check, Named } from '../types'
import { Invite } from './invite'

const roleWord = (r: string) => t((['owner', 'member', 'guest', 'device'].includes(r) ? r : 'member') as Key)

/** What is about to be removed, and how. */
interface Removing extends Named { words: Key; path: string }

export function People() {
  const removing = useSignal<Removing | null>(null)
  const said = useSignal('')
  const { failed, run } = useTask()
  const remove = (r: Removing) => run(async () => {
    removing.value = null
    const res = await api<{ state: string; until?: string } | null>('DELETE', r.path)
    said.value = res?.state === 'proposed' ? t('proposed', { when: when(res.until!) }) : t('removed', { name: r.name })
    await refresh()
  })
  const h = home.value
  return (
    <>
      <h1>{t('people')}</h1>
      <p role="status" class={said.value ? 'notice' : 'nothing'}>{said.value}</p>
      <Trouble of={failed} />
      <h2>{t('persons')}</h2>
      <ul class="list">
        {persons.value.map((p) => (
          <li key={p.slug} data-slug={p.slug}>
            <span><strong>{p.name}</strong> <small>{p.room && `${t('panel')}, ${rooms.value.find((r) => r.slug === p.room)?.name ?? p.room} · `}{roleWord(p.role)}{p.until ? ` · ${t('until')} ${when(p.until * 1000)}` : ''}</small></span>
            {owner.value && <span class="row">
              <Rename of={p} room={rooms.value.find((r) => r.slug === p.room)?.name ?? ''} hint={t('panelRoom')} />
              <select aria-label={`${t('role')}: ${p.name}`} value={p.role === 'device' ? 'member' : p.role} onChange={(e) => {
                const role = e.currentTarget.value
                void run(async () => { await api('PATCH', `/home/persons/${p.slug}`, { role }).finally(refresh) })
              }}>{(['owner', 'member', 'guest'] as const).map((r) => <option key={r} value={r}>{t(r)}</option>)}</select>
              <button onClick={() => { removing.value = { ...p, words: 'removeName', path: `/home/names/${p.slug}` } }}>{t('remove')}</button>
            </span>}
            {h?.phones?.filter((x) => x.person === p.slug).map((x) => (
              <span class="wide row" key={x.slug} data-slug={x.slug}>
                <span>{x.name}</span>
                {owner.value && <button onClick={() => { removing.value = { ...x, words: 'removePhone', path: `/home/members/${x.slug}` } }}>{t('remove')} <span class="hidden">{x.name}</span></button>}
              </span>
            ))}
          </li>
        ))}
      </ul>
      {owner.value && <Invite />}
      <h2>{t('devices')}</h2>
      <ul class="list">
        {devices.value.map((d) => (
          <li key={d.slug} data-slug={d.slug}>
            <span><strong>{d.name}</strong> <small>{[rooms.value.find((r) => r.slug === d.room)?.name, d.class, d.role && roleWord(d.role), d.version].filter(Boolean).join(' · ')}</small></span>
            {owner.value && <span class="row">
              <Rename of={d} room={rooms.value.find((r) => r.slug === d.room)?.name ?? ''} />
              <button onClick={() => { removing.value = d.foreign ? { ...d, words: 'removeName', path: `/home/names/${d.slug}` } : { ...d, words: 'removeDevice', path: `/home/members/${d.slug}` } }}>{t('remove')}</button>
            </span>}
          </li>
        ))}
      </ul>
      <Safe />
      {removing.value && <Ask title={t('removeTitle', removing.value as { name: string } as Record<string, string>)} words={t(removing.value.words)} yes={t('remove')} onYes={() => void remove(removing.value!)} onNo={() => { removing.value = null }} />}
    </>
  )
}

function Rename({ of, room, hint }: { of: Named; room: string; hint?: string }) {
  const open = useSignal(false)
  const name = useSignal(of.name)
  const place = useSignal(room)
  const { busy, failed, run } = useTask()
  if (!open.value) return <button onClick={() => { name.value = of.name; place.value = room; open.value = true }}>{t('rename')}</button>
  return (
    <form class="wide" onSubmit={(e) => {
      e.preventDefault()
      void run(async () => {
        await api('PATCH', `/home/names/${of.slug}`, place.value === room ? { name: name.value } : { name: name.value, room: place.value })
        await refresh()
        open.value = false
      })
    }}>
      <Field label={t('itsName')}><input name="name" value={name.value} maxLength={64} required onInput={(e) => { name.value = e.currentTarget.value }} /></Field>
      <RoomChoice room={place as Signal<string>} hint={hint} />
      <div class="row"><button class="go" disabled={busy.value}>{t('save')}</button><button type="button" onClick={() => { open.value = false }}>{t('cancel')}</button></div>
      <Trouble of={failed} />
    </form>
  )
}

function Safe() {
  const found = useSignal<Finding[] | null>(null)
  const { busy, failed, run } = useTask()
  if (!home.value) return null
  const words = (f: Finding) => ('key' in f ? t(f.key, { names: f.names.join(', ') }) : f.words)
  return (
    <section aria-label={t('safe')}>
      <h2>{t('safe')}</h2>
      <button disabled={busy.value} onClick={() => run(async () => { found.value = safety(home.value!, devices.value, persons.value, await api<Check[]>('GET', '/doctor')) })}>{busy.value ? t('working') : t('check')}</button>
      <Trouble of={failed} />
      <div role="status">{found.value && <ul class="list">
        {found.value.map((f, i) => <li key={i}><span><strong>{t(f.level === 'ok' ? 'fine' : f.level === 'warn' ? 'look' : 'bad')}</strong> {words(f)}{'advice' in f && f.advice && <small>{f.advice}</small>}</span></li>)}
      </ul>}</div>
    </section>
  )
}
