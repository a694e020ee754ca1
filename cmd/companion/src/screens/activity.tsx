import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import { api, calls, devices, home, member, owner, persons, rooms, serving } from '../home'
import { Trouble, useTask } from '../parts'
import { t, when } from '../text'
import type { CallInfo, LogEntry } from '../types'

const user = (uri: string) => /^sips?:([^@;]+)/.exec(uri)?.[1] ?? uri

/** Calls of the device that serves us, and what changed in the home. */
export function Activity() {
  const log = useSignal<LogEntry[]>([])
  const { failed, run } = useTask()
  useEffect(() => {
    if (owner.value) void run(async () => { log.value = (await api<LogEntry[]>('GET', '/home/log')).reverse() })
  }, [home.value])
  if (!member.value) return <><h1>{t('activity')}</h1><p>{t('ownersOnly')}</p></>
  const name = (slug: string) => [...devices.value, ...persons.value, ...rooms.value].find((x) => x.slug === slug)?.name ?? slug
  const line = (c: CallInfo) => {
    const from = c.direction === 'in'
    return t(from ? 'incoming' : 'outgoing', { name: name(c.peer || user(from ? c.from : c.to)) })
  }
  return (
    <>
      <h1>{t('activity')}</h1>
      <h2>{t('callsOf', { name: serving.value })}</h2>
      {calls.value.length === 0 && <p class="none">{t('noCallsYet')}</p>}
      <ul class="list">
        {[...calls.value].sort((a, b) => b.started.localeCompare(a.started)).map((c) => (
          <li key={c.id}><span><strong>{line(c)}</strong> {c.missed && <em>{t('missed')}</em>}{c.reason && <small>{c.taken_by ? t('took', { name: name(c.taken_by) }) : c.reason}</small>}</span><time dateTime={c.started}>{when(c.started)}</time></li>
        ))}
      </ul>
      {owner.value && <>
        <h2>{t('homeLog')}</h2>
        <ol class="list" reversed>
          {log.value.map((e) => <li key={e.number} data-number={e.number}><span>{e.what} <small>{t('by', { name: e.by })}{e.void && ` · ${t('without', { why: e.void })}`}</small></span></li>)}
        </ol>
      </>}
      <Trouble of={failed} />
    </>
  )
}
