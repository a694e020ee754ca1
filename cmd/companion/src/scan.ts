// Reads QR codes from the camera: by the browser's own reader where it has one, else by jsQR,
// which is loaded only then.

interface Detector { detect(v: HTMLVideoElement): Promise<{ rawValue: string }[]> }
interface DetectorClass { new (o: { formats: string[] }): Detector; getSupportedFormats(): Promise<string[]> }

async function reader(): Promise<(v: HTMLVideoElement) => Promise<string>> {
  const own = (globalThis as { BarcodeDetector?: DetectorClass }).BarcodeDetector
  if (own && (await own.getSupportedFormats()).includes('qr_code')) {
    const d = new own({ formats: ['qr_code'] })
    return async (v) => (await d.detect(v))[0]?.rawValue ?? ''
  }
  const { default: jsQR } = await import('jsqr')
  const canvas = document.createElement('canvas')
  const g = canvas.getContext('2d', { willReadFrequently: true })!
  return async (v) => {
    const scale = Math.min(1, 800 / v.videoWidth)
    canvas.width = v.videoWidth * scale
    canvas.height = v.videoHeight * scale
    g.drawImage(v, 0, 0, canvas.width, canvas.height)
    const image = g.getImageData(0, 0, canvas.width, canvas.height)
    return jsQR(image.data, image.width, image.height)?.data ?? ''
  }
}

/** Shows the camera in v and hands over what it reads, until accept says yes or stop is called. */
export async function scan(v: HTMLVideoElement, accept: (text: string) => boolean, stop: AbortSignal) {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment', width: { ideal: 1280 } } })
  try {
    if (stop.aborted) return
    v.srcObject = stream
    await v.play()
    const readFrom = await reader()
    while (!stop.aborted) {
      const text = v.videoWidth ? await readFrom(v) : ''
      if (text && !stop.aborted && accept(text)) return
      await new Promise((done) => setTimeout(done, 120))
    }
  } finally {
    for (const t of stream.getTracks()) t.stop()
    v.srcObject = null
  }
}
