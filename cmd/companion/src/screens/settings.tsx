import { useSignal } from '@preact/signals'
import { api, devices, forgetPhone, groups, home, me, member, owner, persons, refresh, rooms, serving, signOut } from '../home'
import { quiet, setQuiet, signAnew } from '../phone'
import { Ask, Field, Trouble, useTask } from '../parts'
import { choose, chosen, t, type Key, type Language } from '../text'
import { turnOff, turnOn, wakeable, woken } from '../wake'

export function Settings() {
  const asking = useSignal(false)
  const who = me.value!
  return (
    <>
      <h1>{t('settings')}</h1>
      <section>
        <Field label={t('language')}>
          <select value={chosen.value} onChange={(e) => choose(e.currentTarget.value as Language)}>
            <option value="">{t('automatic')}</option><option value="en" lang="en">English</option><option value="de" lang="de">Deutsch</option>
          </select>
        </Field>
      </section>
      {member.value && <Woken />}
      <Quiet />
      <DropIn />
      <section aria-label={t('account')}>
        <h2>{t('account')}</h2>
        <p>{t('signedAs', { name: who.name, role: t(who.role as Key), device: serving.value })}</p>
        <div class="row">
          <a class="button" href="/panel">{t('openPanel')}</a>
          <button onClick={() => void signOut()}>{t('signOut')}</button>
          <button class="danger" onClick={() => { asking.value = true }}>{t('forget')}</button>
        </div>
      </section>
      {asking.value && <Ask title={t('forget')} words={t('forgetHelp')} yes={t('forget')} onYes={() => void forgetPhone()} onNo={() => { asking.value = false }} />}
    </>
  )
}

/** Off until its person wants it: from then on a service outside the home learns when this phone is called. */
function Woken() {
  const { busy, failed, run } = useTask()
  return (
    <section aria-label={t('notifications')}>
      <h2>{t('notifications')}</h2>
      <label class="check">
        <input type="checkbox" name="wake" checked={woken.value} disabled={!wakeable || busy.value} onChange={(e) => {
          const box = e.currentTarget
          return run(async () => {
            await (box.checked ? turnOn() : turnOff())
            signAnew()
          }).finally(() => { box.checked = woken.value })
        }} />{t('wakeOn')}
      </label>
      <small>{t(wakeable ? 'wakeHelp' : 'wakeNot')}</small>
      <Trouble of={failed} />
    </section>
  )
}

/** Do-not-disturb is this phone's own wish; an owner may have made a rule for all of them, which ends here, too. */
function Quiet() {
  const { busy, failed, run } = useTask()
  const mine = me.value!.person
  const ruled = home.value?.rules.some((r) => r.subject === mine && r.right === 'call' && !r.who?.length) ?? false
  return (
    <section aria-label={t('dnd')}>
      <h2>{t('dnd')}</h2>
      <label class="check">
        <input type="checkbox" name="dnd" checked={quiet.value} onChange={(e) => setQuiet(e.currentTarget.checked)} />{t('dndOn')}
      </label>
      <small>{t('dndHelp')}</small>
      {ruled && <p>{t('dndRule')} {owner.value && <button disabled={busy.value} onClick={() => run(async () => {
        await api('DELETE', `/home/rules/${mine}/call`)
        await refresh()
      })}>{t('ruleEnds')}</button>}</p>}
      <Trouble of={failed} />
    </section>
  )
}

function DropIn() {
  const where = useSignal('all')
  const who = useSignal('all')
  const { busy, failed, run } = useTask()
  const names = [...rooms.value, ...devices.value, ...persons.value, ...groups.value]
  const name = (slug: string) => (slug === 'all' ? t('everybody') : names.find((x) => x.slug === slug)?.name ?? slug)
  const rules = home.value?.rules.filter((r) => r.right === 'dropin') ?? []
  const change = (method: 'PUT' | 'DELETE', subject: string, body?: object) => run(async () => {
    await api(method, `/home/rules/${subject}/dropin`, body)
    await refresh()
  })
  return (
    <section aria-label={t('dropIn')}>
      <h2>{t('dropIn')}</h2>
      <p>{t('dropInHelp')}</p>
      <ul class="list">
        {rules.map((r) => (
          <li key={r.subject}><span><strong>{r.subject === 'all' ? t('whole') : name(r.subject)}</strong>: {r.who?.length ? r.who.map(name).join(', ') : t('nobody')} {r.hours}</span>
            {owner.value && <button disabled={busy.value} onClick={() => change('DELETE', r.subject)}>{t('ruleEnds')}</button>}</li>
        ))}
        {rules.length === 0 && <li>{t('safeNoDropIn')}</li>}
      </ul>
      {owner.value ? (
        <form onSubmit={(e) => { e.preventDefault(); void change('PUT', where.value, { who: who.value ? [who.value] : [] }) }}>
          <Field label={t('where')}>
            <select value={where.value} onChange={(e) => { where.value = e.currentTarget.value }}>
              <option value="all">{t('whole')}</option>{[...rooms.value, ...devices.value].map((x) => <option key={x.slug} value={x.slug}>{x.name}</option>)}
            </select>
          </Field>
          <Field label={t('who')}>
            <select value={who.value} onChange={(e) => { who.value = e.currentTarget.value }}>
              <option value="all">{t('everybody')}</option><option value="">{t('nobody')}</option>{[...persons.value, ...groups.value, ...rooms.value].map((x) => <option key={x.slug} value={x.slug}>{x.name}</option>)}
            </select>
          </Field>
          <button disabled={busy.value}>{t('save')}</button>
        </form>
      ) : <p>{t('ownersOnly')}</p>}
      <Trouble of={failed} />
    </section>
  )
}
