/** The model of a bundle, in onnxruntime-web: samples in, one answer out, one run at a time. */
import { BundleError } from "./errors.js";

const DIMENSIONS = "dimensions"; // output of a model that has them, from 0 to 1
const SPEECH = "speech"; // output of a gated bundle's model: log odds of speech, a frame each
export const SHORTEST = 0.1; // seconds: shorter audio is followed by silence, so that any graph has a frame to look at

export class Model {
  #content; // of bundle.json
  #ort;
  #session;
  #turn = Promise.resolve();

  /** Use `Model.start`. */
  constructor(content, ort, session) {
    this.#content = content;
    this.#ort = ort;
    this.#session = session;
  }

  /** The model of a loaded bundle, which gives its bytes away; `ort` is the module onnxruntime-web. */
  static async start(bundle, ort) {
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
    return new Model(bundle.content, ort, session);
  }

  /** Whether it says beside its answer which frames are speech. */
  get gated() {
    return this.#content.gated === true;
  }

  /**
   * Of samples at the model's rate `answer`: probabilities, dimensions behind them; and `odds` of speech, if it is
   * gated. One run at a time, whoever asks.
   */
  run(samples) {
    const result = this.#turn.then(() => this.#answer(samples));
    this.#turn = result.catch(() => {}); // the caller has it
    return result;
  }

  async #answer(samples) {
    const { input, output, labels, dimensions = {}, sample_rate: rate } = this.#content;
    const shortest = Math.floor(SHORTEST * rate);
    if (samples.length < shortest) {
      const padded = new Float32Array(shortest);
      padded.set(samples);
      samples = padded;
    }
    const tensor = new this.#ort.Tensor("float32", samples, [1, samples.length]);
    const found = await this.#session.run({ [input.name]: tensor });
    const probs = labels.length ? found[output.name].data : []; // else it says dimensions alone
    const values = found[DIMENSIONS]?.data ?? [];
    const answer = [...probs, ...values];
    const complete = probs.length === labels.length && values.length === Object.keys(dimensions).length;
    if (!complete || !answer.every(Number.isFinite)) {
      throw new BundleError("the model's answer is not probabilities as bundle.json says: export the bundle again");
    }
    return { answer, odds: found[SPEECH]?.data ?? [] };
  }

  /** Give the memory back. */
  async release() {
    await this.#turn;
    await this.#session.release();
  }
}
