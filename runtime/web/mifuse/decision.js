/** Predictions, and the state that a stream of them leaves: smoothed, without flicker, able to be unsure. */

export const NO_SPEECH = "no speech"; // label and state while nobody speaks
export const NOT_SURE = "not sure"; // state while no emotion is likely enough
const SPOKEN = "speech"; // label and state of speech where a model says dimensions alone

/**
 * An emotion and when. `label` is what this audio alone says; `state` is what an app shows.
 *
 * @typedef {object} Prediction
 * @property {string} label an emotion, or "no speech"; of a model that says dimensions alone "speech"
 * @property {Record<string, number>} scores label -> probability, sums to 1; empty without emotions
 * @property {number} start seconds
 * @property {number} end seconds
 * @property {string} state an emotion, "not sure" or "no speech"; in a stream it changes only on a clear lead
 * @property {number} confidence the largest of the scores, smoothed in a stream
 * @property {number} speech share of the audio that is speech
 * @property {Record<string, number>} dimensions such as arousal, each in its own range; none without speech
 * @property {boolean} demo true of a bundle that was trained on synthetic speech: it says nothing about real voices
 */

/** Turns the probabilities of one window after the other into predictions. */
export class Decider {
  #view;
  #classes; // emotions of the model
  #settings;
  #keep;
  #smooth = null;
  #state = -1; // index of an emotion; -1: none
  #demo;
  #ranges; // [name, [lowest, highest]] of each dimension

  /** `view` is one of `groups.js`, `hop` in seconds. */
  constructor(view, { content, settings, demo }, hop) {
    this.#view = view;
    this.#classes = content.labels.length;
    this.#ranges = Object.entries(content.dimensions ?? {});
    this.#demo = demo;
    this.#settings = settings;
    this.#keep = settings.smoothing ? Math.exp(-hop / settings.smoothing) : 0;
  }

  /** Forget the windows so far. */
  reset() {
    this.#smooth = null;
    this.#state = -1;
  }

  /** The prediction from probabilities, and dimensions behind them, from `start` to `end`; null: no speech. */
  decide(answer, start, end, speech = 1) {
    const { labels, members } = this.#view;
    const equal = labels.map(() => 1 / labels.length);
    const scored = (values) => Object.fromEntries(labels.map((label, i) => [label, values[i]]));
    const rest = { speech, dimensions: {}, demo: this.#demo };
    if (!answer) {
      this.reset();
      return { label: NO_SPEECH, scores: scored(equal), start, end, state: NO_SPEECH, confidence: 0, ...rest };
    }
    for (const [i, [name, [low, high]]] of this.#ranges.entries()) {
      rest.dimensions[name] = low + answer[this.#classes + i] * (high - low);
    }
    if (!labels.length) {
      return { label: SPOKEN, scores: {}, start, end, state: SPOKEN, confidence: 0, ...rest };
    }
    const add = (values) => values.reduce((total, value) => total + value, 0);
    const sums = members.map((parts) => add(parts.map((i) => answer[i])));
    const total = add(sums);
    const shares = total > 0 ? sums.map((value) => value / total) : equal; // of a subset the model may think nothing
    const last = this.#smooth ?? shares;
    this.#smooth = shares.map((share, i) => this.#keep * last[i] + (1 - this.#keep) * share);
    this.#state = this.#next(this.#smooth);
    return {
      label: labels[top(shares)],
      scores: scored(shares),
      start,
      end,
      state: labels[this.#state] ?? NOT_SURE,
      confidence: Math.max(...this.#smooth),
      ...rest,
    };
  }

  #next(smooth) {
    const { abstain, margin } = this.#settings;
    const [best, now] = [top(smooth), this.#state];
    if (now < 0 || smooth[best] - smooth[now] > margin) return smooth[best] >= abstain ? best : -1;
    // The way out is lower than the way in: a score at the threshold must not flicker.
    return smooth[now] >= abstain - margin ? now : -1;
  }
}

/** Index of the largest value, the first of equals. */
const top = (values) => values.indexOf(Math.max(...values));
