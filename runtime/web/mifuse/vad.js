/** The voice-activity gate: which frames of a signal are speech, by energy and spectral flatness. */

const FRAME = 0.032; // seconds; 512 samples at 16 kHz
const FLOOR = 1e-14; // power, so that digital silence has a logarithm

/** Finds out once for each frame of a stream whether it is speech; keeps counts, not audio. */
export class VoiceGate {
  #isSpeech;
  #frame;
  #rest;
  #first; // index of the frame that #counts[0] is the count before
  #counts; // speech frames before each frame, since the start

  /** `vad`, if given, is asked instead: a frame's samples in, the probability of speech or a boolean out. */
  constructor(settings, rate, vad = null) {
    this.#frame = Math.round(FRAME * rate);
    this.#isSpeech = vad ? (frame) => Number(vad(frame)) >= 0.5 : (frame) => isSpeech(frame, settings);
    this.reset();
  }

  /** Forget the signal so far. */
  reset() {
    this.#rest = new Float32Array(0);
    this.#first = 0;
    this.#counts = [0];
  }

  /** Take the next samples. */
  hear(samples) {
    const all = new Float32Array(this.#rest.length + samples.length);
    all.set(this.#rest);
    all.set(samples, this.#rest.length);
    let at = 0;
    for (; at + this.#frame <= all.length; at += this.#frame) {
      const speech = this.#isSpeech(all.subarray(at, at + this.#frame));
      this.#counts.push(this.#counts.at(-1) + Number(speech));
    }
    this.#rest = all.slice(at);
  }

  /** Share of speech in the whole frames within samples `start` to `end`; earlier ones are forgotten. */
  share(start, end) {
    const first = Math.ceil(start / this.#frame);
    this.#counts.splice(0, first - this.#first);
    this.#first = first;
    const last = Math.min(Math.floor(end / this.#frame) - first, this.#counts.length - 1);
    return last > 0 ? (this.#counts[last] - this.#counts[0]) / last : 0;
  }
}

/** Whether a frame is speech: loud enough, and less flat than noise of any colour, octave by octave. */
function isSpeech(frame, settings) {
  let energy = 0;
  for (const sample of frame) energy += sample * sample;
  if (10 * Math.log10(energy / frame.length + FLOOR) < settings.level) return false;
  const power = spectrum(frame);
  let [flatness, octaves] = [0, 0];
  for (let low = 8; 2 * low <= frame.length >> 1; low *= 2) {
    let [logs, sum] = [0, 0];
    for (let bin = low; bin < 2 * low; bin++) {
      logs += Math.log(power[bin] + FLOOR);
      sum += power[bin] + FLOOR;
    }
    flatness += logs / low - Math.log(sum / low);
    octaves++;
  }
  return flatness / octaves <= Math.log(Math.max(settings.flatness, FLOOR)) + 1e-6;
}

/** Power of each frequency of a frame under a Hann window. */
function spectrum(frame) {
  const hann = table(frame.length - 1).cos;
  const windowed = new Float64Array(frame); // a copy
  for (let i = 0; i < frame.length; i++) windowed[i] *= 0.5 - 0.5 * hann[i % hann.length];
  const [re, im] = fourier(windowed, new Float64Array(frame.length));
  return re.map((value, i) => value * value + im[i] * im[i]);
}

/** Discrete Fourier transform, any length: halved while it is even, the odd rest by the definition. */
function fourier(re, im) {
  const size = re.length;
  if (size === 1) return [re, im];
  const out = [new Float64Array(size), new Float64Array(size)];
  const { cos, sin } = table(size);
  const parts = size % 2 ? size : 2;
  const width = size / parts;
  const every = (values, part) => {
    const chosen = new Float64Array(width); // a loop: Float64Array.from makes the gate three times as slow
    for (let i = 0; i < width; i++) chosen[i] = values[i * parts + part];
    return chosen;
  };
  for (let part = 0; part < parts; part++) {
    const [subRe, subIm] = fourier(every(re, part), every(im, part));
    for (let k = 0; k < size; k++) {
      const [turn, i] = [(part * k) % size, k % width];
      out[0][k] += subRe[i] * cos[turn] + subIm[i] * sin[turn];
      out[1][k] += subIm[i] * cos[turn] - subRe[i] * sin[turn];
    }
  }
  return out;
}

const tables = new Map();

/** Cosine and sine of `size` steps around the circle. */
function table(size) {
  if (!tables.has(size)) {
    const of = (f) => Float64Array.from({ length: size }, (_, i) => f((2 * Math.PI * i) / size));
    tables.set(size, { cos: of(Math.cos), sin: of(Math.sin) });
  }
  return tables.get(size);
}
