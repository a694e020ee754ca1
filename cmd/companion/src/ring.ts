// The sound of an incoming call, made by the browser: no file, no permission but one tap.
let audio: AudioContext | null = null

/** Call it from a tap: from then on this page may sound. True: it may. */
export async function arm(): Promise<boolean> {
  audio ??= new AudioContext()
  await Promise.race([audio.resume(), new Promise((done) => setTimeout(done, 300))])
  return audio.state === 'running'
}

/** Rings until the function that it gives is called. */
export function ring(): () => void {
  audio ??= new AudioContext()
  const a = audio
  void a.resume()
  const gain = new GainNode(a, { gain: 0 })
  gain.connect(a.destination)
  const tones = [440, 554].map((frequency) => new OscillatorNode(a, { frequency, type: 'triangle' }))
  for (const o of tones) {
    o.connect(gain)
    o.start()
  }
  const beat = () => {
    const now = a.currentTime
    gain.gain.cancelScheduledValues(now)
    gain.gain.setValueAtTime(0, now)
    gain.gain.linearRampToValueAtTime(0.25, now + 0.05)
    gain.gain.setValueAtTime(0.25, now + 1)
    gain.gain.linearRampToValueAtTime(0, now + 1.2)
  }
  beat()
  const timer = setInterval(beat, 2500)
  return () => {
    clearInterval(timer)
    for (const o of tones) o.stop()
    gain.disconnect()
  }
}
