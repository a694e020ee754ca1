import { describe, expect, test } from 'vitest'
import wishes from '../../hallway/internal/web/testdata/wish.json'
import { sealed, statement, toSign, unhex } from './binding'
import { wishStatement } from './client.js'
import { meaning } from './codes'
import { judge, read, type Reading } from './quality'
import { ability, abilityWord, byRoom, callable, presenceWord, sorted, stateWord, together } from './rooms'
import { safety } from './safety'
import { onlyWatches, previewOf, takenBy } from './sip'
import type { Device, Direction, Home } from './types'

const device = (slug: string, audio: Direction, video: Direction, more: Partial<Device> = {}): Device =>
  ({ slug, name: slug, class: 'panel', node: '', status: 'reachable', presence: 'free', capabilities: { audio: { direction: audio }, video: { direction: video } }, ...more })

describe('codes', () => {
  test.each([
    ['https://hallway-1a2b3c4d.local:8443/add#AB2D.123456782', { kind: 'device', id: 'AB2D', code: '123456782' }],
    ['https://hallway-1a2b3c4d.local:8443/#pair=0123456789ABCDEFGHJKMNPQRS', { kind: 'phone', secret: '0123456789ABCDEFGHJKMNPQRS' }],
    [' 123 456 782 ', { kind: 'device', id: '', code: '123456782' }],
    ['1234-5678-2', { kind: 'device', id: '', code: '123456782' }],
    ['ab2d 123456782', { kind: 'device', id: 'AB2D', code: '123456782' }],
    ['rtsp://user:pw@192.0.2.9/stream', { kind: 'camera', uri: 'rtsp://user:pw@192.0.2.9/stream' }],
    ['12345678', { kind: 'none' }], ['https://example.org/', { kind: 'none' }], ['javascript:alert(1)', { kind: 'none' }], ['', { kind: 'none' }],
  ])('%s', (text, want) => expect(meaning(text)).toEqual(want))
})

describe('rooms', () => {
  test('devices are in their rooms, the rest comes last, empty rooms stay', () => {
    const list = [device('a', 'sendrecv', 'sendrecv', { room: 'hall' }), device('b', 'sendrecv', '', { room: 'gone' }), device('c', 'sendrecv', '')]
    const got = byRoom([{ slug: 'hall', name: 'Hall' }, { slug: 'attic', name: 'Attic' }], list)
    expect(got.map((g) => [g.room?.slug ?? '-', g.devices.map((d) => d.slug).join()])).toEqual([['hall', 'a'], ['attic', ''], ['-', 'b,c']])
  })
  test('names are sorted as people count', () => {
    expect(sorted([{ name: 'TV 10' }, { name: 'TV 2' }, { name: 'attic' }]).map((x) => x.name)).toEqual(['attic', 'TV 2', 'TV 10'])
  })
  test.each<[Direction, Direction, string]>([
    ['sendrecv', 'sendrecv', 'canTalkSee'], ['sendrecv', '', 'canTalk'], ['sendonly', 'sendonly', 'canWatch'], ['', 'sendonly', 'canWatch'],
    ['recvonly', 'recvonly', 'canShow'], ['recvonly', '', 'canPlay'], ['sendonly', '', 'canListen'], ['', '', 'canNothing'],
  ])('%s, %s is %s', (audio, video, want) => expect(abilityWord(ability(device('x', audio, video)))).toBe(want))
  test('a room can do what its devices can', () => {
    expect(together([device('cam', '', 'sendonly'), device('speaker', 'recvonly', '')])).toEqual({ hear: false, see: true, speak: true, show: false })
  })
  test('a device with a fault is not called', () => {
    expect(callable(device('x', '', ''))).toBe(true)
    expect(callable(device('x', '', '', { fault: 'wrong password' }))).toBe(false)
    expect(callable(device('x', '', '', { status: 'unreachable' }))).toBe(false)
  })
})

describe('presence', () => {
  test.each<[string, Device['presence'], string]>([
    ['reachable', 'free', 'reachable'], ['reachable', 'busy', 'inCall'], ['reachable', 'dnd', 'undisturbed'], ['unreachable', 'away', 'unreachable'],
    ['unreachable', 'busy', 'unreachable'], ['never seen', 'away', 'neverSeen'], ['something new', 'free', 'present'],
  ])('a device that is %s and %s: %s', (status, presence, want) => expect(stateWord(device('x', 'sendrecv', '', { status, presence }))).toBe(want))
  test('a person', () => expect((['free', 'busy', 'dnd', 'away'] as const).map(presenceWord)).toEqual(['free', 'inCall', 'undisturbed', 'away']))
})

describe('sip', () => {
  test.each([
    ['SIP;cause=200;text="Call completed elsewhere";by="sip:stove@h.home.arpa"', 'stove'], ['SIP;cause=200;text="Call completed elsewhere"', ''],
    ['SIP;cause=200;text="Call completed elsewhere";by="sip:stove@other.home.arpa"', ''], ['SIP;cause=200;text="Call completed elsewhere";by="sip:<b>@h.home.arpa"', ''],
    ['SIP;cause=487;text="The caller is gone.";by="sip:stove@h.home.arpa"', ''], ['', ''],
  ])('%s: %s took it', (reason, want) => expect(takenBy(reason, 'h.home.arpa')).toBe(want))
})

describe('preview', () => {
  const gr = 'a1'.repeat(16)
  test.each([
    [`<sip:anna@h.home.arpa;gr=${gr}>;purpose=preview`, true], [`<sip:anna@h.home.arpa;gr=${gr}> ; purpose=preview`, true],
    [`<sip:ben@h.home.arpa;gr=${gr}>;purpose=preview`, false], [`<sip:anna@evil.example;gr=${gr}>;purpose=preview`, false], // the one who rings would call them
    ['<sip:anna@h.home.arpa>;purpose=preview', false], ['<sip:anna@h.home.arpa;gr=phones>;purpose=preview', false], [`<sip:anna@h.home.arpa;gr=${gr}>;purpose=icon`, false], ['', false],
  ])('%s: %s', (info, want) => expect(previewOf(info, 'anna', 'h.home.arpa')).toBe(want ? `sip:anna@h.home.arpa;gr=${gr}` : ''))
  const sdp = (...media: string[]) => ['v=0', 's=-', ...media].join('\r\n') + '\r\n'
  test('an offer that only watches', () => {
    expect(onlyWatches(sdp('m=video 9 UDP/TLS/RTP/SAVPF 96', 'a=recvonly'))).toBe(true)
    expect(onlyWatches(sdp('m=video 9 UDP/TLS/RTP/SAVPF 96', 'a=sendrecv'))).toBe(false)
    expect(onlyWatches(sdp('m=video 9 UDP/TLS/RTP/SAVPF 96'))).toBe(false)
    expect(onlyWatches(sdp('m=audio 9 UDP/TLS/RTP/SAVPF 111', 'a=recvonly'))).toBe(false)
    expect(onlyWatches(sdp('m=video 9 UDP/TLS/RTP/SAVPF 96', 'a=recvonly', 'm=audio 9 UDP/TLS/RTP/SAVPF 111', 'a=recvonly'))).toBe(false)
    expect(onlyWatches(sdp())).toBe(false)
  })
})

describe('quality', () => {
  const at = (ms: number, packets: number, lost: number, frames: number, roundTrip = 0.01): Reading => ({ at: ms, packets, lost, frames, roundTrip, wantsPicture: frames > 0 })
  test.each([
    ['good', at(0, 100, 0, 50), at(2000, 200, 0, 100)], ['fair', at(0, 100, 0, 50), at(2000, 200, 2, 100)], ['poor', at(0, 100, 0, 50), at(2000, 200, 10, 100)],
    ['poor', at(0, 100, 0, 50), at(2000, 200, 0, 51)], ['fair', at(0, 100, 0, 0), at(2000, 200, 0, 0, 0.3)], ['silent', at(0, 100, 0, 50), at(2000, 100, 0, 50)],
    ['good', at(0, 100, 5, 0), at(2000, 200, 3, 0)], // a late packet takes back a loss
  ])('%s', (want, a, b) => expect(judge(a, b)).toBe(want))
  test('a report is summed over its streams', () => {
    const report = [
      { type: 'inbound-rtp', kind: 'audio', packetsReceived: 10, packetsLost: 1 }, { type: 'inbound-rtp', kind: 'video', packetsReceived: 20, packetsLost: 2, framesDecoded: 7 },
      { type: 'outbound-rtp', packetsSent: 99 }, { type: 'candidate-pair', nominated: true, currentRoundTripTime: 0.02 }, { type: 'candidate-pair', nominated: false, currentRoundTripTime: 9 },
    ]
    expect(read(report, 5, true)).toEqual({ at: 5, packets: 30, lost: 3, frames: 7, roundTrip: 0.02, wantsPicture: true })
  })
})

describe('binding', () => {
  const hex = (b: Uint8Array) => [...b].map((x) => x.toString(16).padStart(2, '0')).join('')
  const said = statement(unhex('00112233445566778899aabbccddeeff'), 'abcd', unhex('11'.repeat(32)), 258n)
  test('the statement is deterministic CBOR', () => {
    expect(hex(said)).toBe(`a4015000112233445566778899aabbccddeeff026461626364` + `03815820${'11'.repeat(32)}` + '041b0000000000000102')
  })
  test('do not disturb is one key more', () => {
    const quiet = statement(unhex('00112233445566778899aabbccddeeff'), 'abcd', unhex('11'.repeat(32)), 258n, true)
    expect(hex(quiet)).toBe('a5' + hex(said).slice(2) + '05f5')
  })
  test('how it is woken is a map, with a length of two bytes where it is long', () => {
    const endpoint = 'https://push.example/' + 'x'.repeat(279)
    const wakes = statement(unhex('00112233445566778899aabbccddeeff'), 'abcd', unhex('11'.repeat(32)), 258n, false, { endpoint, key: unhex('33'.repeat(32)) })
    expect(hex(wakes)).toBe('a5' + hex(said).slice(2) + `06a20179012c${hex(new TextEncoder().encode(endpoint))}025820${'33'.repeat(32)}`)
  })
  test('the signature covers its purpose', () => expect(hex(toSign(said))).toBe('68616c6c7761792d62696e64696e672f3100' + hex(said)))
  test('long parts have a length byte', () => {
    const out = sealed(unhex('02'.repeat(33)), said, unhex('22'.repeat(64)))
    expect(hex(out)).toBe(`a3015821${'02'.repeat(33)}0258${said.length.toString(16)}${hex(said)}035840${'22'.repeat(64)}`)
    expect(() => sealed(new Uint8Array(65536), said, said)).toThrow(RangeError)
  })
})

// internal/web reads the same file.
test.each(wishes)('a wish to $method $path is signed as the home reads it', async (w) => {
  expect(await wishStatement(w.home, w.owner, w.challenge, w.method, w.path, w.body)).toBe(w.statement)
})

describe('safety', () => {
  const home: Home = { id: '', name: '', members: [{ slug: 'a', name: 'A', class: 'tv', role: 'owner', node: '' }], foreign: [], rules: [], proposals: [] }
  const keys = (h: Home, d: Device[] = []) => safety(h, d, [], []).map((f) => ('key' in f ? f.key : f.words))
  test('one owner is too few', () => expect(keys(home)).toEqual(['safeOneOwner', 'safeNoPlain', 'safeNoDropIn']))
  test('what weakens the home is named', () => {
    const more = { ...home, rules: [{ subject: 'kitchen', right: 'dropin', who: ['all'] }, { subject: 'hall', right: 'dropin', who: [] }] }
    const found = safety(more, [device('cam', '', 'sendonly', { foreign: true }), device('new', '', '', { status: 'never seen' })],
      [{ slug: 'b', name: 'B', presence: 'away', role: 'owner', nodes: [], wakes_by: ['push.example'] }, { slug: 'g', name: 'G', presence: 'away', role: 'guest', nodes: [] }],
      [{ name: 'clock', level: 'warn', words: 'the clock is wrong', advice: 'set it' }, { name: 'x', level: 'ok', words: 'fine' }])
    expect(found).toEqual([
      { level: 'ok', key: 'safeOwners', names: ['A', 'B'] }, { level: 'warn', key: 'safePlain', names: ['cam'] }, { level: 'warn', key: 'safeDropIn', names: ['kitchen'] },
      { level: 'warn', key: 'safeUnseen', names: ['new'] }, { level: 'warn', key: 'safeGuests', names: ['G'] }, { level: 'warn', key: 'safePush', names: ['B (push.example)'] }, { level: 'warn', words: 'the clock is wrong', advice: 'set it' },
    ])
  })
})
