// Small parts that several screens share.
import { useSignal, type Signal } from '@preact/signals'
import { type ComponentChildren } from 'preact'
import { useEffect, useRef } from 'preact/hooks'
import { rooms } from './home'
import { t } from './text'

/** A picture or sound; the stream is no attribute. */
export function Stream({ of, label, quiet, small }: { of: MediaStream | null; label: string; quiet?: boolean; small?: boolean }) {
  const at = useRef<HTMLVideoElement>(null)
  useEffect(() => {
    const v = at.current!
    v.srcObject = of
    if (of) v.play().catch(() => {}) // it plays by itself once the page may
  }, [of])
  return <video ref={at} class={small ? 'small' : undefined} aria-label={label} autoplay playsInline muted={quiet} />
}

/** Runs what may fail, once at a time, and shows why it did. */
export function useTask() {
  const busy = useSignal(false)
  const failed = useSignal('')
  const run = async (f: () => Promise<unknown>) => {
    if (busy.value) return
    busy.value = true
    failed.value = ''
    try {
      await f()
    } catch (e) {
      failed.value = e instanceof Error ? e.message : String(e)
    } finally {
      busy.value = false
    }
  }
  return { busy, failed, run }
}

export function Trouble({ of }: { of: Signal<string> }) {
  return <p role="alert" class={of.value ? 'trouble' : 'nothing'}>{of.value}</p>
}

export function Field({ label, hint, children }: { label: string; hint?: string; children: ComponentChildren }) {
  return <label class="field"><span>{label}</span>{children}{hint && <small>{hint}</small>}</label>
}

/** A room of the home, or a new one by name. The value is the room's name. */
export function RoomChoice({ room, hint }: { room: Signal<string>; hint?: string }) {
  const fresh = useSignal(room.value !== '' && !rooms.value.some((r) => r.name === room.value))
  return (
    <>
      <Field label={t('itsRoom')} hint={hint}>
        <select value={fresh.value ? '+' : room.value} onChange={(e) => {
          fresh.value = e.currentTarget.value === '+'
          room.value = fresh.value ? '' : e.currentTarget.value
        }}>
          <option value="">{t('noRoom')}</option>
          {rooms.value.map((r) => <option key={r.slug} value={r.name}>{r.name}</option>)}
          <option value="+">{t('newRoom')}</option>
        </select>
      </Field>
      {fresh.value && <Field label={t('newRoom')}><input value={room.value} maxLength={64} required onInput={(e) => { room.value = e.currentTarget.value }} /></Field>}
    </>
  )
}

/** A question that must be answered first. */
export function Ask({ title, words, yes, onYes, onNo }: { title: string; words: string; yes: string; onYes: () => void; onNo: () => void }) {
  const at = useRef<HTMLDialogElement>(null)
  useEffect(() => {
    const d = at.current!
    d.showModal()
    return () => d.close()
  }, [])
  return (
    <dialog ref={at} aria-labelledby="asked" onCancel={(e) => { e.preventDefault(); onNo() }}>
      <h2 id="asked">{title}</h2>
      <p>{words}</p>
      <div class="row"><button class="danger" onClick={onYes}>{yes}</button><button onClick={onNo}>{t('cancel')}</button></div>
    </dialog>
  )
}
