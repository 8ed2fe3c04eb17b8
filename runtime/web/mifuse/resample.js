/** Any sample rate to the model's: the windowed-sinc polyphase filter of `mifuse_runtime/resample.py`. */
import { AudioError } from "./errors.js";

const RATES = [1000, 768_000]; // Hz: what is taken
const ZEROS = 64; // zero crossings of the sinc on each side
const CUTOFF = 0.96; // of the lower Nyquist frequency
const BETA = 8; // Kaiser window: stop band 80 dB down

/** Resamples a mono signal that comes in pieces of any size; the result does not depend on the pieces. */
export class Resampler {
  #down;
  #up;
  #bank;
  #rest;
  #taken;
  #given;

  constructor(rate, target) {
    if (!Number.isInteger(rate) || rate < RATES[0] || rate > RATES[1]) {
      throw new AudioError(`sample rate is ${rate}: ${RATES[0]} to ${RATES[1]} Hz can be used`);
    }
    // 640 keeps the rates in use exact (11.025 kHz is 441/640 of 16 kHz) and the filter small.
    [this.#down, this.#up] = shortRatio(rate, target, 640);
    this.#bank = this.#down === this.#up ? [] : filters(this.#down, this.#up);
    this.reset();
  }

  /** Forget the signal so far. */
  reset() {
    this.#taken = this.#given = 0;
    this.#rest = new Float32Array((this.#bank[0]?.length ?? 0) >> 1);
  }

  /** The output that the samples so far settle: the last few ms wait for what follows. */
  feed(samples) {
    const [down, up, bank] = [this.#down, this.#up, this.#bank];
    if (!bank.length) return samples;
    this.#taken += samples.length;
    const all = new Float32Array(this.#rest.length + samples.length);
    all.set(this.#rest);
    all.set(samples, this.#rest.length);
    const last = Math.floor(((up - 1) * down) / up); // where the last phase's taps begin
    const rows = Math.max(0, Math.floor((all.length - last - bank[0].length) / down) + 1);
    const out = new Float32Array(rows * up);
    for (let i = 0; i < out.length; i++) {
      const filter = bank[i % up];
      const start = Math.floor((i * down) / up);
      let sum = 0;
      for (let tap = 0; tap < filter.length; tap++) sum += filter[tap] * all[start + tap];
      out[i] = sum;
    }
    this.#rest = all.slice(rows * down);
    this.#given += out.length;
    return out;
  }

  /** The rest of the output, as if silence followed; then ready for another signal. */
  flush() {
    let rest = new Float32Array(0);
    if (this.#bank.length) {
      const missing = Math.ceil((this.#taken * this.#up) / this.#down) - this.#given;
      rest = this.feed(new Float32Array(this.#bank[0].length + 2 * this.#down)).subarray(0, missing);
    }
    this.reset();
    return rest;
  }
}

/** The mono signal at `target` Hz, ceil(n * target / rate) samples. */
export function resample(samples, rate, target) {
  const resampler = new Resampler(rate, target);
  const body = resampler.feed(samples);
  const rest = resampler.flush();
  if (!rest.length) return body;
  const out = new Float32Array(body.length + rest.length);
  out.set(body);
  out.set(rest, body.length);
  return out;
}

/** One filter for each phase of the output between two inputs. */
function filters(down, up) {
  const stretch = Math.max(1, down / up);
  const half = Math.ceil(ZEROS * stretch);
  return Array.from({ length: up }, (_, phase) => {
    const between = ((phase * down) % up) / up;
    const taps = Float64Array.from({ length: 2 * half + 1 }, (_, i) => tap((i - half - between) / stretch));
    const sum = taps.reduce((total, value) => total + value, 0);
    return Float32Array.from(taps, (value) => value / sum);
  });
}

function tap(offset) {
  if (Math.abs(offset) >= ZEROS) return 0;
  const x = Math.PI * CUTOFF * offset;
  return (x ? Math.sin(x) / x : 1) * bessel(BETA * Math.sqrt(1 - (offset / ZEROS) ** 2));
}

/** Modified Bessel function of the first kind, order 0, by its power series. */
function bessel(x) {
  let [sum, term] = [1, 1];
  for (let k = 1; term > 1e-17 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

/** The fraction nearest to over / under whose denominator is at most `limit`, by continued fractions. */
function shortRatio(over, under, limit) {
  let [p0, q0, p1, q1] = [0, 1, 1, 0];
  let [n, d] = [over, under];
  for (; d; ) {
    const whole = Math.floor(n / d);
    if (q0 + whole * q1 > limit) break;
    [p0, q0, p1, q1] = [p1, q1, p0 + whole * p1, q0 + whole * q1];
    [n, d] = [d, n - whole * d];
  }
  if (!d) return [p1, q1];
  const times = Math.floor((limit - q0) / q1);
  const [p, q] = [p0 + times * p1, q0 + times * q1];
  const error = (a, b) => Math.abs(a / b - over / under);
  return error(p1, q1) <= error(p, q) ? [p1, q1] : [p, q];
}
