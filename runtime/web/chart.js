/** The pictures of the page: the waveform, the state of each channel, and the probabilities over the same time. */

import { NO_SPEECH } from "./mifuse.js";

// After Okabe and Ito, for people who see few colours, darker where white paper needs it; dashes and names help.
export const COLOURS = ["#d55e00", "#b07d00", "#009e73", "#0072b2", "#c0609a", "#3d8fc4"];
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];
const BUCKET = 0.02; // seconds behind one bar of the waveform
const SPAN = 30; // seconds of live audio in the picture
const KEPT = 1000; // predictions
const ROW = 18; // pixels of a channel's track
const MARGIN = 64; // pixels to the right of the time axis, for the names of the lines

export class Chart {
  #wave;
  #track;
  #lines;
  #labels = [];
  #span;
  #levels; // loudest sample of each bucket
  #bucket; // [samples, loudest] of the one that fills
  #predictions;
  #tracks; // [name, parts] of each channel; a part is [from, to, state]
  #due = false;

  constructor(wave, track, lines) {
    this.#wave = wave;
    this.#track = track;
    this.#lines = lines;
    this.clear([]);
    new ResizeObserver(() => this.#draw()).observe(wave.parentElement);
  }

  /** Start again; `seconds` is the length of a recording, none for live audio. */
  clear(labels, seconds = 0) {
    this.#labels = labels;
    this.#span = seconds;
    this.#tracks = [];
    this.begin("");
  }

  /** Start another channel; the states of those before stay. */
  begin(name) {
    if (this.#tracks.at(-1)?.[0] === "") this.#tracks.pop(); // of no channel: nothing has come yet
    this.#tracks.push([name, []]);
    this.#track.style.height = `${ROW * this.#tracks.length}px`;
    this.#levels = [];
    this.#bucket = [0, 0];
    this.#predictions = [];
    this.#draw();
  }

  /** The next samples, at `rate` Hz. */
  addSamples(samples, rate) {
    const size = BUCKET * rate;
    for (const sample of samples) {
      const loudest = Math.max(this.#bucket[1], Math.abs(sample));
      this.#bucket = [this.#bucket[0] + 1, loudest];
      if (this.#bucket[0] < size) continue;
      this.#levels.push(loudest);
      this.#bucket = [this.#bucket[0] - size, 0];
    }
    this.#draw();
  }

  /** A prediction of a track, by its number; lines are drawn of the last one's. */
  addPrediction(prediction, track = this.#tracks.length - 1) {
    if (track === this.#tracks.length - 1) this.#predictions.push(prediction);
    if (this.#predictions.length > KEPT) this.#predictions.shift();
    const parts = this.#tracks[track][1];
    const last = parts.at(-1);
    if (last?.[2] === prediction.state) last[1] = prediction.end;
    else parts.push([last?.[1] ?? prediction.start, prediction.end, prediction.state]);
    if (parts.length > KEPT) parts.shift();
    this.#draw();
  }

  /** Draw before the next frame, once however much has come. */
  #draw() {
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => {
      this.#due = false;
      const received = this.#levels.length * BUCKET;
      const span = this.#span || SPAN;
      const start = this.#span ? 0 : Math.max(0, received - span);
      drawWave(this.#wave, this.#levels, start, span);
      drawTracks(this.#track, this.#tracks, this.#labels, start, span);
      drawLines(this.#lines, this.#predictions, this.#labels, start, span);
    });
  }
}

function drawWave(canvas, levels, start, span) {
  const { pen, width, height, ink } = surface(canvas);
  pen.fillStyle = ink;
  const right = width - MARGIN;
  for (let x = 0; x < right; x++) {
    const from = Math.floor((start + (x / right) * span) / BUCKET);
    const to = Math.max(from + 1, Math.floor((start + ((x + 1) / right) * span) / BUCKET));
    const loudest = Math.max(0, ...levels.slice(from, to));
    const bar = Math.max(1, Math.min(1, loudest) * height);
    if (from < levels.length) pen.fillRect(x, (height - bar) / 2, 1, bar);
  }
}

/** A row for each channel: its emotion's colour, grey where it is not sure, nothing where nobody speaks. */
function drawTracks(canvas, tracks, labels, start, span) {
  const { pen, width, ink, rule } = surface(canvas);
  const right = width - MARGIN;
  pen.font = "12px system-ui, sans-serif";
  tracks.forEach(([name, parts], row) => {
    for (const [from, to, state] of parts) {
      if (to <= start || state === NO_SPEECH) continue;
      const emotion = labels.indexOf(state);
      pen.fillStyle = emotion < 0 ? rule : COLOURS[emotion % COLOURS.length];
      const x = (Math.max(from, start) - start) / span * right;
      pen.fillRect(x, row * ROW + 2, Math.max(1, (to - start) / span * right - x), ROW - 4);
    }
    pen.fillStyle = ink;
    pen.fillText(name, right + 6, row * ROW + 13, 58);
  });
}

function drawLines(canvas, predictions, labels, start, span) {
  const { pen, width, height, ink, rule } = surface(canvas);
  const [right, bottom] = [width - MARGIN, height - 20]; // room for the time
  const x = (time) => ((time - start) / span) * right;
  const y = (probability) => bottom - probability * (bottom - 18);
  pen.font = "12px system-ui, sans-serif";
  for (const probability of [0, 0.5, 1]) {
    pen.fillStyle = rule;
    pen.fillRect(0, y(probability), right, 1);
    pen.fillStyle = ink;
    pen.fillText(String(probability), 2, y(probability) - 3);
  }
  const step = [1, 2, 5, 10, 30, 60, 300].find((seconds) => span / seconds <= 8) ?? 600;
  for (let time = Math.ceil(start / step) * step; time <= start + span; time += step) {
    pen.fillText(`${time} s`, Math.min(x(time), right - 28), height - 4);
  }
  const last = predictions.at(-1);
  const names = [];
  labels.forEach((label, i) => {
    pen.strokeStyle = pen.fillStyle = COLOURS[i % COLOURS.length];
    pen.setLineDash(DASHES[i % DASHES.length]);
    pen.lineWidth = 2;
    pen.beginPath();
    let drawing = false;
    for (const { end, scores, speech } of predictions) {
      if (end < start) continue;
      if (speech && drawing) pen.lineTo(x(end), y(scores[label]));
      else pen.moveTo(x(end), y(scores[label]));
      drawing = speech > 0; // a gap where nobody speaks
    }
    pen.stroke();
    if (last?.speech) names.push({ label, colour: pen.fillStyle, at: y(last.scores[label]) + 4 });
  });
  // Names of lines that lie close would cover each other.
  names.sort((one, other) => one.at - other.at);
  names.forEach((name, i) => {
    name.at = Math.max(Math.min(name.at, bottom + 2 - 13 * (names.length - 1 - i)), (names[i - 1]?.at ?? 0) + 13);
    pen.fillStyle = name.colour;
    pen.fillText(name.label, Math.min(x(last.end), right) + 6, name.at, 58);
  });
}

/** The canvas emptied, at the screen's own resolution. */
function surface(canvas) {
  const [width, height, scale] = [canvas.clientWidth, canvas.clientHeight, devicePixelRatio];
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(canvas);
  return { pen, width, height, ink: style.getPropertyValue("--soft"), rule: style.getPropertyValue("--rule") };
}
