// Scanning or typing a code, as the screens Pair and Add do it.
import { useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import { meaning, type Code } from './codes'
import { Field } from './parts'
import { scan } from './scan'
import { t } from './text'

export function CodeInput({ onCode, accepts }: { onCode: (c: Code) => void; accepts: Code['kind'][] }) {
  const scanning = useSignal(false)
  const text = useSignal('')
  const wrong = useSignal('')
  const at = useRef<HTMLVideoElement>(null)
  const take = (raw: string) => {
    const c = meaning(raw)
    if (!accepts.includes(c.kind)) {
      wrong.value = c.kind === 'phone' ? t('isPhone') : t('noCode')
      return false
    }
    scanning.value = false
    onCode(c)
    return true
  }
  useEffect(() => {
    if (!scanning.value) return
    const stop = new AbortController()
    scan(at.current!, take, stop.signal).catch(() => {
      scanning.value = false
      wrong.value = t('notAllowed')
    })
    return () => stop.abort()
  }, [scanning.value])
  return (
    <>
      {scanning.value && <video ref={at} class="finder" aria-label={t('cameraView')} muted playsInline />}
      <button class="go" type="button" onClick={() => { wrong.value = ''; scanning.value = !scanning.value }}>{scanning.value ? t('stopScan') : t('scan')}</button>
      <form onSubmit={(e) => { e.preventDefault(); take(text.value) }}>
        <Field label={t('typeCode')}><input name="code" value={text.value} required autocomplete="off" autocapitalize="characters" spellcheck={false} onInput={(e) => { text.value = e.currentTarget.value }} /></Field>
        <button>{t('next')}</button>
      </form>
      <p role="alert" class={wrong.value ? 'trouble' : 'nothing'}>{wrong.value}</p>
    </>
  )
}
