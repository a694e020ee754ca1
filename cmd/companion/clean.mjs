// Empties dist but for the committed page that a program without the app shows.
import { mkdirSync, readdirSync, rmSync } from 'node:fs'

mkdirSync('dist', { recursive: true })
for (const name of readdirSync('dist')) if (name !== 'placeholder.html') rmSync(`dist/${name}`, { recursive: true })
