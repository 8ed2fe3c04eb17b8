/** The voice-activity gate: which frames of a signal are speech, by the network of `mifuse_runtime/vad.py`. */
import weights from "./vad-weights.js";

const FRAME = 0.032; // seconds; 512 samples at 16 kHz
const SPACING = 62.5; // Hz between bins
const [FLOOR, POWER_FLOOR] = [1e-12, 1e-9]; // power, so that digital silence has a logarithm
const [BANDS, LOW, HIGH] = [20, 80, 7600]; // mel bands, and Hz from the first to the last
const BINS = 129;
const FINE = [1, 49]; // bins that are looked at one by one
const GROUP = 6; // of them whose changes are averaged
const LAGS = [1, 3, 6]; // frames that changes are measured over
const CONTEXT = 16; // frames that means are taken over

/** Samples of a frame, an even number. */
const frameSize = (rate) => 2 * Math.round((FRAME / 2) * rate);

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
    this.#frame = frameSize(rate);
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
  const size = frameSize(rate);
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

/** Which of the whole frames of a clip are as loud as speech must be. */
export function loudFrames(samples, settings, rate) {
  const size = frameSize(rate);
  const count = Math.floor(samples.length / size);
  return Array.from({ length: count }, (_, i) => isLoud(samples.subarray(i * size, (i + 1) * size), settings));
}

/** `speechShare` of a clip of whose frames a graph gave the log odds, and that are loud or not. */
export function shareOf(odds, loud, settings) {
  const passed = loud.map((is, i) => is && odds[i] >= least(settings));
  return passed.filter((is, i) => is && passed[i - 1]).length / loud.length; // as `isSpeech`
}

const isLoud = (frame, { level }) => 10 * Math.log10(dot(frame, frame) / frame.length + FLOOR) >= level;

/** Log odds that speech must have. */
const least = ({ voice }) => Math.log(Math.max(voice, FLOOR) / Math.max(1 - voice, FLOOR));

/** The network of `mifuse_runtime/vad.py` on one frame after the other. */
class Network {
  #settings;
  #past = []; // log power of the last frames, the latest last
  #hidden = []; // what the first layer made of them
  #passed = false;

  constructor(settings) {
    this.#settings = settings;
  }

  isSpeech(frame) {
    const loud = isLoud(frame, this.#settings);
    if (!(this.#settings.voice > 0)) return loud;
    const odds = this.#odds(frame); // also of quiet frames: the next ones look back at it
    const before = this.#passed;
    this.#passed = loud && odds >= least(this.#settings);
    return before && this.#passed; // a voice lasts longer than a click: two frames or more
  }

  #odds(frame) {
    const now = logPower(frame);
    if (!this.#past.length) this.#past = Array(Math.max(...LAGS)).fill(now);
    const inputs = joined([now, ...LAGS.map((lag) => changes(now, this.#past.at(-lag)))]);
    this.#past.shift();
    this.#past.push(now);
    const hidden = layer(inputs, weights.hidden, weights.hidden_bias);
    if (!this.#hidden.length) this.#hidden = Array(CONTEXT).fill(hidden);
    this.#hidden.shift();
    this.#hidden.push(hidden);
    const mean = new Float64Array(hidden.length);
    for (const row of this.#hidden) for (let unit = 0; unit < mean.length; unit++) mean[unit] += row[unit] / CONTEXT;
    return dot(layer(joined([hidden, mean]), weights.second, weights.second_bias), weights.output) + weights.output_bias;
  }
}

/** Arrays one behind the other. */
function joined(parts) {
  const all = new Float64Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Sums of inputs by their rows of weights, over a bias, where above 0. */
function layer(inputs, rows, bias) {
  const sums = Float64Array.from(bias);
  for (let i = 0; i < inputs.length; i++) {
    const row = rows[i];
    for (let unit = 0; unit < sums.length; unit++) sums[unit] += inputs[i] * row[unit];
  }
  return sums.map((sum) => Math.max(0, sum));
}

/** By how much the log power of two frames differs: means of groups of bins, then each band. */
function changes(now, before) {
  const fine = FINE[1] - FINE[0];
  const found = new Float64Array(fine / GROUP + BANDS);
  for (let i = 0; i < now.length; i++) {
    const change = Math.abs(now[i] - before[i]);
    if (i < fine) found[Math.floor(i / GROUP)] += change / GROUP;
    else found[i - fine + fine / GROUP] = change;
  }
  return found;
}

/** Log power of a frame: of the bins in `FINE`, then of the bands. */
function logPower(frame) {
  const power = new Float64Array(BINS);
  power.set(spectrum(frame).subarray(0, BINS));
  const values = joined([power.subarray(...FINE), bands().map((filter) => dot(filter, power))]);
  return values.map((value) => Math.log(value + POWER_FLOOR));
}

function dot(one, other) {
  let sum = 0;
  for (let i = 0; i < one.length; i++) sum += one[i] * other[i];
  return sum;
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
    const filter = Float64Array.from({ length: BINS }, (_, bin) => {
      const hertz = bin * SPACING;
      return Math.max(0, Math.min((hertz - from) / (centre - from), (to - hertz) / (to - centre)));
    });
    const sum = filter.reduce((total, value) => total + value, 0);
    return filter.map((value) => value / sum);
  });
  return filters;
}

/** Power of every second frequency of a frame under a Hann window of sum 1: its halves are added before the DFT. */
function spectrum(frame) {
  const half = frame.length / 2;
  const { cos } = table(frame.length);
  const folded = new Float64Array(half);
  for (let i = 0; i < half; i++) {
    folded[i] = (frame[i] * (0.5 - 0.5 * cos[i]) + frame[i + half] * (0.5 - 0.5 * cos[i + half])) / half;
  }
  const [re, im] = fourier(folded);
  const power = new Float64Array(Math.floor(half / 2) + 1);
  for (let k = 0; k < power.length; k++) power[k] = re[k] * re[k] + im[k] * im[k];
  return power;
}

/** Discrete Fourier transform of real values, any length: halved while it is even, the odd rest by the definition. */
function fourier(values) {
  const [re, im] = [new Float64Array(values.length), new Float64Array(values.length)];
  // In place, of every `step`-th value: arrays for each half would cost four times as much.
  const transform = (from, step, at, size) => {
    const { cos, sin } = table(size);
    if (size % 2) {
      for (let k = 0; k < size; k++) {
        for (let i = 0; i < size; i++) {
          re[at + k] += values[from + i * step] * cos[(i * k) % size];
          im[at + k] -= values[from + i * step] * sin[(i * k) % size];
        }
      }
      return;
    }
    const half = size / 2;
    transform(from, 2 * step, at, half);
    transform(from + step, 2 * step, at + half, half);
    for (let k = 0; k < half; k++) {
      const [even, odd] = [at + k, at + k + half];
      const turnedRe = re[odd] * cos[k] + im[odd] * sin[k];
      const turnedIm = im[odd] * cos[k] - re[odd] * sin[k];
      re[odd] = re[even] - turnedRe;
      im[odd] = im[even] - turnedIm;
      re[even] += turnedRe;
      im[even] += turnedIm;
    }
  };
  transform(0, 1, 0, values.length);
  return [re, im];
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
