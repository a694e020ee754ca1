// Drives one Chromium for a test: reads one JSON command a line and answers with one line each.
// {id, do: "before", js}, which runs in each page before its own scripts | {do: "open", url} | {do: "eval", js} | {do: "text"} | {do: "cookies"}: their values | {do: "close"} | what a person does:
// {do: "click" | "fill" | "choose" | "wait" | "gone", at: selector, value} | {do: "look", width, height, dark} | {do: "shot", file}; answers {id, value} or {id, error}.
// Arguments: profile folder, then further arguments for Chromium.
import { chromium } from 'playwright-core'
import { createInterface } from 'node:readline'

const [profile, ...args] = process.argv.slice(2)
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--no-first-run', ...args],
  permissions: ['camera', 'microphone'],
})
const page = context.pages()[0] ?? await context.newPage()
const patience = { timeout: 15000 }
const commands = {
  before: ({ js }) => page.addInitScript(js).then(() => null),
  open: async ({ url }) => (await page.goto(url, { timeout: 15000 }))?.status() ?? 0,
  // The code is the body of an async function; it runs in the page, under its origin.
  eval: ({ js }) => page.evaluate(`(async () => { ${js} })()`),
  click: ({ at }) => page.click(at, patience),
  fill: ({ at, value }) => page.fill(at, value, patience),
  choose: ({ at, value }) => page.selectOption(at, value, patience),
  wait: ({ at }) => page.waitForSelector(at, patience).then(() => null),
  gone: ({ at }) => page.waitForSelector(at, { ...patience, state: 'detached' }).then(() => null),
  look: async ({ width, height, dark }) => {
    await page.setViewportSize({ width, height })
    await page.emulateMedia({ colorScheme: dark ? 'dark' : 'light' })
  },
  shot: ({ file }) => page.screenshot({ path: file, fullPage: true }).then(() => null),
  cookies: async () => (await context.cookies()).map((c) => c.value),
  text: () => page.evaluate('document.body.innerText'),
}
// More pages: {do: "another", url} opens one and gives its number, {do: "in", page, js} evaluates there,
// {do: "crash", page} kills its process.
const others = []
Object.assign(commands, {
  another: async ({ url }) => {
    const made = await context.newPage()
    await made.goto(url, patience)
    return others.push(made) - 1
  },
  in: ({ page: n, js }) => others[n].evaluate(`(async () => { ${js} })()`),
  crash: async ({ page: n }) => void (await context.newCDPSession(others[n])).send('Page.crash').catch(() => {}), // it is not answered
})
// The service worker: {do: "permit"} lets the page show notices, {do: "push"} hands it an empty push, as the browser's
// push service would, {do: "worker", js} evaluates there. {do: "freeze", on} stops the processes of pages, as a phone
// does in the background: the browser itself goes on and answers for them.
Object.assign(commands, {
  permit: () => context.grantPermissions(['notifications']),
  push: async () => {
    const dev = await context.newCDPSession(page)
    const known = new Promise((done) => dev.on('ServiceWorker.workerRegistrationUpdated', (e) => e.registrations.length && done(e.registrations[0])))
    await dev.send('ServiceWorker.enable')
    const { registrationId, scopeURL } = await known
    await dev.send('ServiceWorker.deliverPushMessage', { origin: new URL(scopeURL).origin, registrationId, data: '' })
    await dev.detach()
  },
  freeze: async ({ on }) => {
    const { processInfo } = await (await context.browser().newBrowserCDPSession()).send('SystemInfo.getProcessInfo')
    for (const p of processInfo) if (p.type === 'renderer') process.kill(p.id, on ? 'SIGSTOP' : 'SIGCONT')
  },
  worker: async ({ js }) => (context.serviceWorkers()[0] ?? await context.waitForEvent('serviceworker', patience)).evaluate(`(async () => { ${js} })()`),
})
console.log(JSON.stringify({ id: 0, value: context.browser()?.version() ?? 'ready' }))
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  if (command.do === 'close') break
  try {
    console.log(JSON.stringify({ id: command.id, value: (await commands[command.do](command)) ?? null }))
  } catch (e) {
    console.log(JSON.stringify({ id: command.id, error: String(e.message ?? e) }))
  }
}
await context.close()
process.exit(0)
