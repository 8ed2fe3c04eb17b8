/** The recogniser: a loaded bundle that turns samples into emotions. */
import { checked, mono, trimSilence } from "./audio.js";
import { loadBundle } from "./bundle.js";
import { Decider } from "./decision.js";
import { grouping, subset, whole } from "./groups.js";
import { Model, SHORTEST } from "./model.js";
import { resample } from "./resample.js";
import { Stream } from "./stream.js";
import { loudFrames, shareOf, speechShare } from "./vad.js";

/** Emotions of speech, from a bundle. One serves many streams. */
export class Recognizer {
  #bundle;
  #model;
  #view;

  /** Use `Recognizer.load`. */
  constructor(bundle, model, view) {
    this.#bundle = bundle;
    this.#model = model;
    this.#view = view;
  }

  /**
   * Load a bundle after checking the SHA-256 of its model.
   *
   * @param {string | URL | ((name: string) => Promise<BufferSource>)} source the bundle's address, in Node also its
   *   folder; or a function that reads a file of it, for files that a user chose
   * @param {object} [options]
   * @param {string} [options.precision] "fp32" or "int8"; the bundle's default if left out
   * @param {object} [options.ort] the module onnxruntime-web, where an import by that name does not find it
   * @returns {Promise<Recognizer>}
   */
  static async load(source, { precision, ort } = {}) {
    const bundle = await loadBundle(source, precision);
    return new Recognizer(bundle, await Model.start(bundle, ort), whole(bundle.content.labels));
  }

  /** The emotions, in the order of the model's output; of a subset or groups, theirs. */
  get labels() {
    return this.#view.labels;
  }

  /**
   * The same recogniser asked about some of its emotions alone: their scores sum to 1. The model is shared.
   *
   * @param {string[]} labels two or more
   * @returns {Recognizer}
   */
  subset(labels) {
    return new Recognizer(this.#bundle, this.#model, subset(this.#view, labels));
  }

  /**
   * The same recogniser with several emotions as one; those of no group stay. The model is shared.
   *
   * @param {Record<string, string[]>} groups as in `{ negative: ["angry", "sad"] }`
   * @returns {Recognizer}
   */
  grouped(groups) {
    return new Recognizer(this.#bundle, this.#model, grouping(this.#view, groups));
  }

  /** Such as arousal, name -> [lowest, highest]; none of a model that says emotions alone. */
  get dimensions() {
    return this.#bundle.content.dimensions ?? {};
  }

  /** The model's sample rate in Hz; `predict` takes it when none is given. */
  get sampleRate() {
    return this.#bundle.content.sample_rate;
  }

  /** Seconds that a prediction of a stream looks at, if its maker does not choose. */
  get window() {
    return this.#bundle.content.window;
  }

  /** Whether the bundle was trained on synthetic speech, as each prediction of it then says. */
  get demo() {
    return this.#bundle.demo;
  }

  /** "fp32" or "int8": which of the bundle's models runs. */
  get precision() {
    return this.#bundle.precision;
  }

  /**
   * The emotion of one clip, looked at as a whole; silence at its ends is not.
   *
   * @param {Float32Array | Float64Array | Int16Array | Array} samples mono, or an array of channels
   * @param {number} [sampleRate] Hz
   * @param {"mix" | "left" | "right" | number} [channel] the mean of all, or one of them
   * @returns {Promise<import("./decision.js").Prediction>}
   */
  async predict(samples, sampleRate = this.sampleRate, channel = "mix") {
    const ready = resample(checked(mono(samples, channel)), sampleRate, this.sampleRate);
    const trimmed = trimSilence(ready, this.sampleRate); // as of the clips that students learn from
    const { settings } = this.#bundle;
    const gated = this.#model.gated && trimmed.length >= SHORTEST * this.sampleRate && settings.voice > 0;
    const loud = gated ? loudFrames(trimmed, settings, this.sampleRate) : [];
    let speech = gated ? Number(loud.includes(true)) : speechShare(trimmed, settings, this.sampleRate); // at most
    const found = speech < settings.speech ? null : await this.#model.run(trimmed);
    if (gated && found) speech = shareOf(found.odds, loud, settings);
    const answer = speech < settings.speech ? null : found.answer;
    const decider = new Decider(this.#view, this.#bundle, 1);
    return decider.decide(answer, 0, ready.length / this.sampleRate, speech);
  }

  /**
   * A stream of predictions over audio that arrives in chunks.
   *
   * @param {object} [options]
   * @param {number} [options.sampleRate] Hz of the chunks; the model's if left out
   * @param {number} [options.window] seconds that each prediction looks at; the bundle's if left out
   * @param {number} [options.hop] seconds between predictions
   * @param {(frame: Float32Array) => number | boolean} [options.vad] finds speech instead of the bundle's own
   *   gate: called once for each 32 ms, returns the probability of speech or a boolean
   * @param {"mix" | "left" | "right" | number} [options.channel] of chunks that are arrays of channels
   * @returns {Stream}
   */
  stream({ sampleRate = this.sampleRate, window = this.window, hop = 0.5, vad = null, channel = "mix" } = {}) {
    return new Stream(this.#model, this.#bundle, this.#view, { sampleRate, window, hop, vad, channel });
  }

  /** Give the model's memory back; no recogniser of this bundle can be used any more. */
  async release() {
    await this.#model.release();
  }
}
