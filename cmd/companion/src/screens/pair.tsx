import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import { pair, secretOfURL } from '../client.js'
import { CodeInput } from '../code'
import { phase, start } from '../home'
import { Field, Trouble, useTask } from '../parts'
import { t } from '../text'

// A browser at the device itself may be named by the address: nobody has to tap then. Elsewhere a
// link does not decide.
const named = location.hostname === 'localhost' ? new URLSearchParams(location.hash.slice(1)).get('name') : null
const fromURL = secretOfURL() // once, before anything else reads the address

/** This browser is no phone of the home yet. */
export function Pair() {
  const secret = useSignal(fromURL ?? '')
  const name = useSignal(named || t('myPhone'))
  const words = useSignal('')
  const { busy, failed, run } = useTask()
  const again = async () => {
    const r = await pair(secret.value, name.value)
    words.value = r.words
    if (r.state !== 'paired') return
    secret.value = ''
    phase.value = 'starting'
    await new Promise((done) => setTimeout(done, 500)) // the roster edit reaches the device that serves us
    void start()
  }
  useEffect(() => {
    if (!words.value || failed.value) return
    const timer = setInterval(() => run(again), 1000)
    return () => clearInterval(timer)
  }, [words.value, failed.value])
  useEffect(() => { if (fromURL && named) void run(again) }, [])
  document.title = `${t('pairTitle')} · Hallway`
  return (
    <main class="alone">
      <h1>{t('pairTitle')}</h1>
      {words.value && !failed.value ? (
        <div role="status"><p>{t('waiting')}</p><p class="words">{words.value}</p></div>
      ) : secret.value ? (
        <form onSubmit={(e) => { e.preventDefault(); void run(again) }}>
          <Field label={t('phoneName')}><input name="name" value={name.value} maxLength={64} required onInput={(e) => { name.value = e.currentTarget.value }} /></Field>
          <button class="go" disabled={busy.value}>{t('pair')}</button>
          <button type="button" onClick={() => { secret.value = ''; words.value = ''; failed.value = '' }}>{t('cancel')}</button>
        </form>
      ) : (
        <>
          <p>{t('pairIntro')}</p>
          <CodeInput accepts={['phone', 'device']} onCode={(c) => { secret.value = c.kind === 'phone' ? c.secret : c.kind === 'device' ? c.code : '' }} />
          <button class="quiet" onClick={() => { phase.value = 'starting'; void start() }}>{t('signIn')}</button>
        </>
      )}
      <Trouble of={failed} />
    </main>
  )
}
