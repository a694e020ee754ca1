// Fails when the app is larger than a slow phone should load, or when its page would break its own policy.
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { gzipSync } from 'node:zlib'

const budget = 150_000 // bytes, compressed, all files together
const page = readFileSync('dist/index.html', 'utf8')
if (/<style|style=|<script(?![^>]*\ssrc=)|\son\w+=|https?:\/\//.test(page)) {
  console.error('index.html has inline code or leads elsewhere; the policy of the page forbids both')
  process.exit(1)
}
let total = 0
for (const name of readdirSync('dist', { recursive: true })) {
  const file = `dist/${name}`
  if (name === 'placeholder.html' || statSync(file).isDirectory()) continue
  const size = gzipSync(readFileSync(file), { level: 9 }).length
  total += size
  console.log(`${String(size).padStart(8)}  ${name}`)
}
console.log(`${String(total).padStart(8)}  of ${budget} bytes, compressed`)
if (total > budget) {
  console.error('the app is too large')
  process.exit(1)
}
