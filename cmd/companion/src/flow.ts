// The WebSocket under JsSIP. Browsers do not tell a page when the other side lost its power, so
// it pings as RFC 5626 section 4.4.1 says (RFC 7118 section 6 allows it), and a flow that does
// not answer is dead at once: JsSIP makes a new one.
import type { Socket } from 'jssip/lib/Socket'

const pingEvery = 1500 // ms
const unanswered = 2 // pings after which a flow is dead: one alone may be the page's own delay
const connectTime = 5000 // ms; an address of a dead device takes 3 s to fail, and the next one is tried then

export class Flow implements Socket {
  via_transport: string
  readonly url: string
  readonly sip_uri: string
  private ws: WebSocket | null = null
  private attempt = 0
  private timer = 0
  private asked = 0 // pings since something was heard

  /** ready makes sure that the node takes us; it runs before each connection. */
  constructor(private ready: () => Promise<unknown>) {
    const tls = location.protocol !== 'http:'
    this.via_transport = tls ? 'WSS' : 'WS'
    this.url = `${tls ? 'wss' : 'ws'}://${location.host}/sip`
    this.sip_uri = `sip:${location.host};transport=ws`
  }

  private look = () => { if (document.visibilityState === 'visible') this.pingIn(0) }

  onconnect() {}
  ondisconnect(_error: boolean, _code?: number, _reason?: string) {}
  ondata(_data: unknown) {}

  connect() {
    const mine = ++this.attempt
    const lost = () => { if (mine === this.attempt) this.lost() }
    this.timer = window.setTimeout(lost, connectTime)
    this.ready().then(() => {
      if (mine !== this.attempt) return
      const ws = (this.ws = new WebSocket(this.url, 'sip'))
      ws.binaryType = 'arraybuffer'
      ws.onclose = lost
      ws.onopen = () => {
        document.addEventListener('visibilitychange', this.look)
        this.heard()
        this.onconnect()
      }
      ws.onmessage = (e: MessageEvent<unknown>) => {
        this.heard()
        if (e.data !== '\r\n') this.ondata(e.data)
      }
    }, lost)
  }

  /** Each answer begins a new chain of timers: browsers slow down long ones of hidden pages to one a minute. */
  private heard() {
    this.asked = 0
    this.pingIn(pingEvery)
  }

  private pingIn(ms: number) {
    clearTimeout(this.timer)
    this.timer = window.setTimeout(() => this.ping(), ms)
  }

  private ping() {
    if (this.asked++ === unanswered) return this.lost()
    this.ws?.send('\r\n\r\n')
    this.pingIn(pingEvery)
  }

  private lost() {
    this.disconnect()
    this.ondisconnect(true, 1006, '')
  }

  disconnect() {
    this.attempt++
    clearTimeout(this.timer)
    document.removeEventListener('visibilitychange', this.look)
    const ws = this.ws
    this.ws = null
    if (!ws) return
    ws.onopen = ws.onclose = ws.onmessage = null
    ws.close()
  }

  isConnected() { return this.ws?.readyState === WebSocket.OPEN }

  isConnecting() { return this.ws?.readyState === WebSocket.CONNECTING }

  send(message: string | ArrayBufferLike | Blob | ArrayBufferView): boolean {
    if (!this.isConnected()) return false
    this.ws!.send(message as string)
    return true
  }
}
