/** The voice-activity gate: which frames of a signal are speech, by the network of `mifuse_runtime/vad.py`. */
import weights from "./vad-weights.js";

const FRAME = 0.032; // seconds; 512 samples at 16 kHz
const [FLOOR, BAND_FLOOR] = [1e-12, 1e-9]; // power, so that digital silence has a logarithm
const [BANDS, LOW, HIGH] = [20, 80, 7600]; // mel bands, and Hz from the first to the last
const OCTAVES = [8, 16, 32, 64, 128, 256]; // bins
const FINE = [3, 131]; // bins whose pattern is held against that of some frames before
const LAGS = [1, 3, 6]; // frames
const CONTEXT = 16; // frames

/** Finds out once for each frame of a stream whether it is speech; keeps counts, not audio. */
export class VoiceGate {
  #make;
  #isSpeech;
  #frame;
  #rest;
  #first; // index of the frame that #counts[0] is the count before
  #counts; // speech frames before each frame, since the start

  /** `vad`, if given, is asked instead: a frame's samples in, the probability of speech or a boolean out. */
  constructor(settings, rate, vad = null) {
    this.#frame = Math.round(FRAME * rate);
    this.#make = () => {
      const network = new Network(settings);
      return vad ? (frame) => Number(vad(frame)) >= 0.5 : (frame) => network.isSpeech(frame);
    };
    this.reset();
  }

  /** Forget the signal so far. */
  reset() {
    this.#isSpeech = this.#make();
    this.#rest = new Float32Array(0);
    this.#first = 0;
    this.#counts = [0];
  }

  /** Take the next samples. */
  feed(samples) {
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

/** Share of the frames of a clip that are speech; what is less than a frame counts as one. */
export function speechShare(samples, settings, rate) {
  const size = Math.round(FRAME * rate);
  if (samples.length < size) {
    const padded = new Float32Array(size);
    padded.set(samples);
    samples = padded;
  }
  const network = new Network(settings);
  let [speech, frames] = [0, 0];
  for (let at = 0; at + size <= samples.length; at += size, frames++) {
    speech += Number(network.isSpeech(samples.subarray(at, at + size)));
  }
  return speech / frames;
}

/** The network of `mifuse_runtime/vad.py` on one frame after the other. */
class Network {
  #settings;
  #past = []; // what each of the last frames gave: log bands, flatness, likeness
  #passed = false;
  #fine = []; // spectra of the last frames

  constructor(settings) {
    this.#settings = settings;
  }

  isSpeech(frame) {
    const { level, voice } = this.#settings;
    let energy = 0;
    for (const sample of frame) energy += sample * sample;
    const loud = 10 * Math.log10(energy / frame.length + FLOOR) >= level;
    if (!(voice > 0)) return loud;
    const inputs = this.#inputs(frame); // also of quiet frames: the next ones look back at it
    let sum = weights.output_bias;
    for (let unit = 0; unit < weights.output.length; unit++) {
      let value = weights.hidden_bias[unit];
      for (let i = 0; i < inputs.length; i++) value += inputs[i] * weights.hidden[i][unit];
      sum += Math.max(0, value) * weights.output[unit];
    }
    const before = this.#passed;
    this.#passed = loud && sum >= Math.log(Math.max(voice, FLOOR) / Math.max(1 - voice, FLOOR));
    return before && this.#passed; // a voice lasts longer than a click: two frames or more
  }

  #inputs(frame) {
    const power = new Float64Array(OCTAVES.at(-1));
    power.set(spectrum(frame).subarray(0, power.length).map((value) => value / frame.length));
    const now = [...bands().map((filter) => Math.log(dot(filter, power) + BAND_FLOOR)), ...flatness(power)];
    const fine = power.subarray(...FINE).map(Math.sqrt);
    const size = Math.sqrt(dot(fine, fine)) + 1e-7;
    const unit = fine.map((value) => value / size);
    if (!this.#fine.length) this.#fine = Array(Math.max(...LAGS)).fill(unit);
    for (const lag of LAGS) now.push(dot(unit, this.#fine.at(-lag)));
    this.#fine = [...this.#fine.slice(1), unit];
    if (!this.#past.length) this.#past = Array(CONTEXT).fill(now);
    this.#past = [...this.#past.slice(1), now];
    const mean = now.map((_, i) => this.#past.reduce((sum, row) => sum + row[i], 0) / CONTEXT);
    const spread = mean.slice(0, BANDS).map((middle, i) => {
      const square = this.#past.reduce((sum, row) => sum + row[i] * row[i], 0) / CONTEXT;
      return Math.sqrt(Math.max(0, square - middle * middle));
    });
    const middle = mean.slice(0, BANDS).reduce((sum, value) => sum + value, 0) / BANDS;
    const against = (values) => values.map((value, i) => (i < BANDS ? value - middle : value));
    return [...against(now), ...against(mean), ...spread];
  }
}

function dot(one, other) {
  let sum = 0;
  for (let i = 0; i < one.length; i++) sum += one[i] * other[i];
  return sum;
}

function flatness(power) {
  return OCTAVES.slice(1).map((end, i) => {
    let [logs, sum] = [0, 0];
    for (let bin = OCTAVES[i]; bin < end; bin++) {
      logs += Math.log(power[bin] + FLOOR);
      sum += power[bin] + FLOOR;
    }
    return logs / (end - OCTAVES[i]) - Math.log(sum / (end - OCTAVES[i]));
  });
}

let filters;

/** The filters of the bands, mel triangles of sum 1. */
function bands() {
  if (filters) return filters;
  const mel = (hertz) => 2595 * Math.log10(1 + hertz / 700);
  const [low, high] = [mel(LOW), mel(HIGH)];
  const edge = (i) => 700 * (10 ** ((low + ((high - low) * i) / (BANDS + 1)) / 2595) - 1);
  filters = Array.from({ length: BANDS }, (_, i) => {
    const [from, centre, to] = [edge(i), edge(i + 1), edge(i + 2)];
    const filter = Float64Array.from({ length: OCTAVES.at(-1) }, (_, bin) => {
      const hertz = bin / FRAME;
      return Math.max(0, Math.min((hertz - from) / (centre - from), (to - hertz) / (to - centre)));
    });
    const sum = filter.reduce((total, value) => total + value, 0);
    return filter.map((value) => value / sum);
  });
  return filters;
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
