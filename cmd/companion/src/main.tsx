import { signal } from '@preact/signals'
import { render, type ComponentChild, type JSX } from 'preact'
import { live, phase, start } from './home'
import { Activity } from './screens/activity'
import { Add } from './screens/add'
import { CallScreen } from './screens/call'
import { House } from './screens/house'
import { Pair } from './screens/pair'
import { Panel } from './screens/panel'
import { People } from './screens/people'
import { Settings } from './screens/settings'
import { language, t, type Key } from './text'
import './style.css'

const path = signal(location.pathname)
addEventListener('popstate', () => { path.value = location.pathname })

function go(e: JSX.TargetedMouseEvent<HTMLAnchorElement>) {
  if (e.ctrlKey || e.metaKey || e.shiftKey) return
  e.preventDefault()
  history.pushState(null, '', e.currentTarget.pathname)
  path.value = location.pathname
  document.querySelector<HTMLElement>('main')?.focus()
}

const screens: { at: string; name: Key; short?: Key; show: () => ComponentChild }[] = [
  { at: '/', name: 'house', show: () => <House /> },
  { at: '/add', name: 'add', show: () => <Add /> },
  { at: '/people', name: 'people', short: 'persons', show: () => <People /> },
  { at: '/activity', name: 'activity', show: () => <Activity /> },
  { at: '/settings', name: 'settings', show: () => <Settings /> },
]

function App() {
  document.documentElement.lang = language()
  if (phase.value === 'starting') return <main class="alone"><p role="status">{t('starting')}</p></main>
  if (phase.value === 'out') return <Pair />
  if (path.value === '/panel') return <><Panel /><CallScreen /></>
  const screen = screens.find((s) => s.at === path.value) ?? screens[0]
  document.title = `${t(screen.name)} · Hallway`
  return (
    <>
      <a class="skip" href="#content" onClick={(e) => { e.preventDefault(); document.querySelector<HTMLElement>('main')?.focus() }}>{t('skip')}</a>
      <nav aria-label={t('menu')}>
        {screens.map((s) => <a key={s.at} href={s.at} onClick={go} aria-current={s === screen ? 'page' : undefined} aria-label={t(s.name)}>{t(s.short ?? s.name)}</a>)}
      </nav>
      <main id="content" tabIndex={-1}>
        {!live.value && <p class="notice" role="status">{t('offline')}</p>}
        {screen.show()}
      </main>
      <CallScreen />
    </>
  )
}

render(<App />, document.getElementById('app')!)
void start()
