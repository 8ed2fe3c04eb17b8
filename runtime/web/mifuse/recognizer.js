/** The recogniser: a loaded bundle that turns samples into emotions. */
import { checked, mono, trimSilence } from "./audio.js";
import { loadBundle } from "./bundle.js";
import { Decider } from "./decision.js";
import { BundleError } from "./errors.js";
import { resample } from "./resample.js";
import { Stream } from "./stream.js";
import { speechShare } from "./vad.js";

const DIMENSIONS = "dimensions"; // output of a model that has them, from 0 to 1
const SHORTEST = 0.1; // seconds: shorter audio is followed by silence, so that any graph has a frame to look at

/** Emotions of speech, from a bundle. One serves many streams. */
export class Recognizer {
  #bundle;
  #ort;
  #session;
  #turn = Promise.resolve();

  /** Use `Recognizer.load`. */
  constructor(bundle, ort, session) {
    this.#bundle = bundle;
    this.#ort = ort;
    this.#session = session;
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
    ort ??= await import("onnxruntime-web");
    ort.env.wasm.numThreads = 1; // more need a page that is isolated from all others, and gain nothing here
    const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all", logSeverityLevel: 4 };
    let session;
    try {
      session = await ort.InferenceSession.create(bundle.model, options);
    } catch (error) {
      throw new BundleError(`the ${bundle.precision} model cannot be run (${error.message}): export the bundle again`);
    }
    const { input, output } = bundle.content;
    // A second output, the embedding, serves speakers whom a device gets to know, which this runtime does not yet.
    if (`${session.inputNames} ${session.outputNames[0]}` !== `${input.name} ${output.name}`) {
      throw new BundleError(`the model's input is ${session.inputNames} and its output ${session.outputNames}, `
        + `bundle.json says ${input.name} and ${output.name}: export the bundle again`);
    }
    bundle.model = null; // the session has its own copy
    return new Recognizer(bundle, ort, session);
  }

  /** The emotions, in the order of the model's output. */
  get labels() {
    return this.#bundle.content.labels;
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
    const speech = speechShare(trimmed, settings, this.sampleRate);
    const answer = speech < settings.speech ? null : await this.#run(trimmed);
    const decider = new Decider(this.labels, settings, 1, this.demo, this.dimensions);
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
    return new Stream((samples) => this.#run(samples), this.#bundle, { sampleRate, window, hop, vad, channel });
  }

  /** Give the model's memory back; the recogniser cannot be used any more. */
  async release() {
    await this.#turn;
    await this.#session.release();
  }

  /** Probabilities of samples at the model's rate, dimensions behind them; one run at a time, whoever asks. */
  #run(samples) {
    const result = this.#turn.then(() => this.#answer(samples));
    this.#turn = result.catch(() => {}); // the caller has it
    return result;
  }

  async #answer(samples) {
    const shortest = Math.floor(SHORTEST * this.sampleRate);
    if (samples.length < shortest) {
      const padded = new Float32Array(shortest);
      padded.set(samples);
      samples = padded;
    }
    const { input, output } = this.#bundle.content;
    const tensor = new this.#ort.Tensor("float32", samples, [1, samples.length]);
    const found = await this.#session.run({ [input.name]: tensor });
    const [probs, values] = [found[output.name].data, found[DIMENSIONS]?.data ?? []];
    const answer = [...probs, ...values];
    const whole = probs.length === this.labels.length && values.length === Object.keys(this.dimensions).length;
    if (!whole || !answer.every(Number.isFinite)) {
      throw new BundleError("the model's answer is not probabilities as bundle.json says: export the bundle again");
    }
    return answer;
  }
}
