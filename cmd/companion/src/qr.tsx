// A QR code as a picture: one path, black on white also in the dark, or cameras do not read it.
import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'

export function QR({ of, label }: { of: string; label: string }) {
  const shape = useSignal({ size: 0, path: '' })
  useEffect(() => {
    void import('qrcode-generator').then(({ default: qrcode }) => {
      const q = qrcode(0, 'M')
      q.addData(of)
      q.make()
      const size = q.getModuleCount()
      let path = ''
      for (let y = 0; y < size; y++) for (let x = 0; x < size; x++) if (q.isDark(y, x)) path += `M${x} ${y}h1v1h-1z`
      shape.value = { size, path }
    })
  }, [of])
  return <svg class="qr" viewBox={`0 0 ${shape.value.size} ${shape.value.size}`} shape-rendering="crispEdges" role="img" aria-label={label}><path d={shape.value.path} /></svg>
}
