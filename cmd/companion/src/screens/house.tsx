import { useEffect } from 'preact/hooks'
import { groups, me, persons, places, rooms } from '../home'
import { dial, registered } from '../phone'
import { ability, abilityWord, byRoom, callable, presenceWord, stateWord, together } from '../rooms'
import { t } from '../text'
import type { Device, Person } from '../types'

const shapes: Record<string, string> = {
  camera: 'M4 8h11v9H4z M15 11l5-3v9l-5-3', doorbell: 'M7 3h10v18H7z M12 15.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3', speaker: 'M6 3h12v18H6z M12 18a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7',
  tv: 'M3 5h18v12H3z M8 21h8', stb: 'M3 9h18v7H3z M7 12.5h3', phone: 'M7 2h10v20H7z M11 19h2', panel: 'M3 4h18v14H3z M12 15h.01',
}

function Icon({ of }: { of: string }) {
  return <svg viewBox="0 0 24 24" aria-hidden="true"><path d={shapes[of] ?? 'M5 5h14v14H5z'} /></svg>
}

/** A device as a button: a tap calls it, with a picture where it shows one. */
function Tile({ of: d }: { of: Device }) {
  const can = ability(d)
  const words = t(abilityWord(can))
  const now = d.fault || t(stateWord(d))
  const self = d.slug === me.value?.person
  const ready = callable(d) && registered.value && !self
  return (
    <li>
      <button class="tile" data-slug={d.slug} aria-disabled={!ready} onClick={() => ready && dial(d.slug, can, true)}>
        <Icon of={d.class} />
        <strong>{d.name}</strong>
        <span class={callable(d) && d.presence === 'free' ? 'state on' : 'state'}>{now}</span>
        <span class="can">{self ? t('thisPhone') : words}</span>
      </button>
    </li>
  )
}

export function House() {
  useEffect(() => { performance.mark('house') }, [])
  const parts = byRoom(rooms.value, places.value)
  const others = persons.value.filter((p) => p.nodes?.length && !p.room)
  return (
    <>
      <h1>{t('house')}</h1>
      {!registered.value && <p class="notice" role="status">{t('noCalls')}</p>}
      {parts.length === 0 && <p>{t('emptyHome')}</p>}
      <div class="rooms">
        {parts.map(({ room, devices: list }) => {
          const ready = registered.value && list.some((d) => callable(d) && d.slug !== me.value?.person)
          const name = room?.name ?? t('noRoom')
          return (
            <section key={room?.slug ?? ''} aria-label={name} data-room={room?.slug}>
              <div class="head">
                <h2>{name}</h2>
                {room && list.length > 0 && <button class="quiet" aria-disabled={!ready} onClick={() => ready && dial(room.slug, together(list), true)}>{t('callRoom', { name })}</button>}
              </div>
              {list.length ? <ul class="tiles">{list.map((d) => <Tile key={d.slug} of={d} />)}</ul> : <p class="none">{t('emptyRoom')}</p>}
            </section>
          )
        })}
        {others.length + groups.value.length > 0 && (
          <section aria-label={t('persons')}>
            <div class="head"><h2>{t('persons')}</h2></div>
            <ul class="tiles">
              {[...others, ...groups.value].map((p) => {
                const self = p.slug === me.value?.person
                const ready = registered.value && !self
                const presence = (p as Partial<Person>).presence
                return (
                  <li key={p.slug}>
                    <button class="tile" data-slug={p.slug} aria-disabled={!ready} onClick={() => ready && dial(p.slug, { hear: true, see: true, speak: true, show: true }, true)}>
                      <Icon of="phone" /><strong>{p.name}</strong>{presence && <span class={presence === 'free' ? 'state on' : 'state'}>{t(presenceWord(presence))}</span>}<span class="can">{self ? t('thisPhone') : t('canTalkSee')}</span>
                    </button>
                  </li>
                )
              })}
            </ul>
          </section>
        )}
      </div>
    </>
  )
}
