// What the API says, as far as the app reads it (/api/v1/openapi.json has all of it).

export type Direction = 'sendrecv' | 'sendonly' | 'recvonly' | 'inactive' | ''
export type Presence = 'free' | 'busy' | 'dnd' | 'away'
export interface Medium { direction: Direction }
export interface Device {
  slug: string
  name: string
  room?: string
  class: string
  node: string
  self?: boolean
  role?: string
  status: string
  presence: Presence
  version?: string
  capabilities: { audio: Medium; video: Medium }
  foreign?: boolean
  fault?: string
}
export interface Foreign { id: string; name: string; is: string; kinds: string[] | null; addrs: string[] | null }
export interface Candidate { id: string; class: string; is: string; name: string; room?: string; version: string }
export interface Named { slug: string; name: string }
export interface Person extends Named { presence: Presence; role: string; nodes: string[] | null; until?: number; room?: string; wakes_by?: string[] }
export interface Phone extends Named { node: string; person: string }
export interface Rule { subject: string; right: string; who: string[] | null; hours?: string }
export interface Member extends Named { room?: string; class: string; role: string; node: string }
export interface Home { id: string; name: string; members: Member[]; phones?: Phone[]; foreign: { slug: string; uri: string }[]; rules: Rule[]; proposals: { target: string; by: string }[] }
export interface Session { person: string; name: string; role: string; phone: string; csrf: string }
export interface Check { name: string; level: string; words: string; advice?: string }
export interface CallInfo { id: string; direction: string; state: string; peer?: string; from: string; to: string; started: string; answered?: string; ended?: string; missed?: boolean; reason?: string; taken_by?: string }
export interface LogEntry { number: number; op: string; by: string; what: string; void?: string }
export interface PhoneWindow { state: string; url?: string; code?: string; person?: string; phone?: string; words?: string }
