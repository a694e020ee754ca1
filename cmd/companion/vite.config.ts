import { defineConfig } from 'vite'

// The app's policy forbids what is inline: no data: URLs, no preload script.
export default defineConfig({
  esbuild: { jsx: 'automatic', jsxImportSource: 'preact' },
  build: { target: 'es2022', assetsInlineLimit: 0, modulePreload: { polyfill: false }, emptyOutDir: false, reportCompressedSize: false, cssCodeSplit: false },
})
