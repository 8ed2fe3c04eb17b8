/** A stream: audio in chunks of any size, a prediction for each window. */
import { channelIndex, checked, mono } from "./audio.js";
import { Decider } from "./decision.js";
import { AudioError } from "./errors.js";
import { Resampler } from "./resample.js";
import { VoiceGate } from "./vad.js";

const WINDOWS = [0.1, 60]; // seconds
const HOPS = [0.01, 3600]; // seconds

/**
 * Windowed predictions; made by `Recognizer.stream`. Calls are done one after the other, awaited or not.
 *
 * The first prediction comes when a whole window is there, then one every `hop` seconds.
 * How the audio is cut into chunks makes no difference.
 */
export class Stream {
  #model;
  #rate;
  #channel;
  #needed; // share of a window that must be speech
  #resampler;
  #window; // samples
  #grid; // samples between the places where windows may begin
  #hop; // samples
  #voice;
  #decider;
  #buffer;
  #turn = Promise.resolve();
  #filled; // samples in the buffer, the last of them the latest
  #received; // samples since the start
  #next; // index of the next window's first sample
  #done; // index behind the last window
  #warned; // texts
  #closed;

  constructor(model, bundle, view, { sampleRate, window, hop, vad, channel }) {
    for (const [name, value, [low, high]] of [["window", window, WINDOWS], ["hop", hop, HOPS]]) {
      if (!(value >= low && value <= high)) throw new AudioError(`${name} is ${value} s: ${low} to ${high} can be used`);
    }
    channelIndex(channel); // refuse what is none at once
    const { content, settings, grid } = bundle;
    this.#channel = channel;
    this.#model = model;
    this.#rate = content.sample_rate;
    this.#needed = settings.speech;
    this.#resampler = new Resampler(sampleRate, this.#rate);
    this.#window = Math.round(window * this.#rate);
    this.#grid = grid;
    this.#hop = Math.max(1, Math.round(hop * this.#rate));
    this.#voice = new VoiceGate(settings, this.#rate, vad);
    this.#decider = new Decider(view, bundle, this.#hop / this.#rate);
    this.#buffer = new Float32Array(2 * this.#window + grid - 1);
    this.#restart();
  }

  /**
   * The predictions that the chunk completes, often none; the chunk is as for `Recognizer.predict`.
   *
   * NaN and infinite samples count as silence, with one warning on the console; an empty chunk is no error.
   * Throws an AudioError for what cannot be used; the stream goes on as if the chunk had not come.
   *
   * @returns {Promise<import("./decision.js").Prediction[]>}
   */
  feed(chunk) {
    return this.#inTurn(() => this.#advance(this.#resampler.feed(this.#accept(chunk))));
  }

  /** End the stream: what came since the last prediction is recognised, if it is 0.1 s or more. */
  close() {
    return this.#inTurn(async () => {
      if (this.#closed) return [];
      this.#closed = true;
      const found = await this.#advance(this.#resampler.flush());
      if (this.#received > this.#done && this.#received - this.#next >= WINDOWS[0] * this.#rate) {
        found.push(await this.#look(this.#received));
      }
      return found;
    });
  }

  /** Forget what came before; time starts again at 0. */
  reset() {
    return this.#inTurn(async () => this.#restart());
  }

  #inTurn(work) {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => {}); // the caller has it
    return result;
  }

  #restart() {
    for (const part of [this.#resampler, this.#voice, this.#decider]) part.reset();
    this.#filled = this.#received = this.#next = this.#done = 0;
    this.#warned = new Set();
    this.#closed = false;
  }

  #accept(chunk) {
    if (this.#closed) throw new AudioError("the stream is closed: make another one, or reset() it");
    const samples = mono(chunk, this.#channel, (text) => this.#warn(text));
    let broken = false;
    for (let i = 0; i < samples.length; i++) {
      if (Number.isFinite(samples[i])) continue;
      samples[i] = 0; // mono() made a copy
      broken = true;
    }
    if (samples.length) checked(samples);
    if (broken) this.#warn("mifuse: the stream holds NaN or infinite samples: they count as silence");
    return samples;
  }

  /** Say it once. */
  #warn(text) {
    if (!this.#warned.has(text)) console.warn(text);
    this.#warned.add(text);
  }

  async #advance(samples) {
    const found = [];
    for (let at = 0; at < samples.length; at += this.#window) {
      this.#append(samples.subarray(at, at + this.#window));
      while (this.#next + this.#window <= this.#received) found.push(await this.#look(this.#next + this.#window));
    }
    return found;
  }

  #append(piece) {
    if (this.#filled + piece.length > this.#buffer.length) {
      // Less than a window waits for later windows: each sample is moved once or twice.
      const kept = Math.max(0, Math.min(this.#received - this.#first(), this.#filled));
      this.#buffer.copyWithin(0, this.#filled - kept, this.#filled);
      this.#filled = kept;
    }
    this.#buffer.set(piece, this.#filled);
    this.#filled += piece.length;
    this.#received += piece.length;
    this.#voice.feed(piece);
  }

  /** Index of the sample that the next window begins with, up to a grid step before its `start`. */
  #first() {
    return Math.floor(this.#next / this.#grid) * this.#grid;
  }

  /** The prediction for the samples from the next window's first to `end`. */
  async #look(end) {
    const start = this.#next;
    const speech = this.#voice.share(start, end);
    const offset = this.#filled - this.#received;
    const silent = speech < this.#needed;
    const taken = () => this.#buffer.slice(this.#first() + offset, end + offset);
    const answer = silent ? null : (await this.#model.run(taken())).answer;
    this.#next += this.#hop;
    this.#done = end;
    return this.#decider.decide(answer, start / this.#rate, end / this.#rate, speech);
  }
}
