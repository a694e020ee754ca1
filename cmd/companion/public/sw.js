// The service worker of phones that asked to be woken; no other browser has it. It keeps no file of the app. A push
// says that somebody calls and nothing more: the page that a tap opens learns the rest from the home.
const words = new URL(location.href).searchParams.get('words') ?? '' // in the language of the page that registered it

addEventListener('install', () => skipWaiting())
addEventListener('activate', (e) => e.waitUntil(clients.claim()))
addEventListener('push', (e) => e.waitUntil(called()))
addEventListener('notificationclick', (e) => {
  e.notification.close()
  e.waitUntil(open())
})

const pages = () => clients.matchAll({ type: 'window', includeUncontrolled: true })

async function called() {
  if ((await pages()).some((p) => p.visibilityState === 'visible')) return // it rings by itself
  // No picture: it would be fetched from the home first, which a phone elsewhere waits for in vain.
  await registration.showNotification('Hallway', { body: words, tag: 'call', renotify: true, requireInteraction: true })
}

async function open() {
  const [page] = await pages()
  return page ? page.focus() : clients.openWindow('/')
}
