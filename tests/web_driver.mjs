// Runs mifuse.js, and any graph, for tests/browser.py: a request as JSON on each line of stdin, its answer as JSON on stdout.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { SETTINGS } from "../runtime/web/mifuse/bundle.js";
import { parseGroups } from "../runtime/web/mifuse/groups.js";
import { resample } from "../runtime/web/mifuse/resample.js";
import { Recognizer, readAudio } from "../runtime/web/mifuse.js";

const recognizers = new Map();
const sessions = new Map();
const ort = createRequire(new URL("../runtime/web/mifuse.js", import.meta.url))("onnxruntime-web");
ort.env.wasm.numThreads = 1;

async function samplesOf({ samples, type = "Float32Array", channels = 0 }) {
  const bytes = new Uint8Array(await readFile(samples));
  const all = new globalThis[type](bytes.buffer);
  if (!channels) return all;
  return Array.from({ length: channels }, (_, channel) => all.filter((_, i) => i % channels === channel));
}

const part = (samples, from, to) =>
  Array.isArray(samples) ? samples.map((channel) => channel.subarray(from, to)) : samples.subarray(from, to);

const calls = {
  async graph({ file, data, dims }) {
    if (!sessions.has(file)) sessions.set(file, ort.InferenceSession.create(await readFile(file)));
    const session = await sessions.get(file);
    const bytes = new Uint8Array(await readFile(data));
    const input = new ort.Tensor("float32", new Float32Array(bytes.buffer), dims);
    const output = (await session.run({ [session.inputNames[0]]: input }))[session.outputNames[0]];
    const [rows, columns] = output.dims;
    return Array.from({ length: rows }, (_, i) => Array.from(output.data.subarray(i * columns, (i + 1) * columns)));
  },
  settings: async () => SETTINGS,
  async load({ bundle, precision }) {
    const recognizer = await Recognizer.load(bundle, { precision });
    recognizers.set(bundle, recognizer);
    return { labels: recognizer.labels, sampleRate: recognizer.sampleRate, precision: recognizer.precision };
  },
  predict: async (request) => recognizers.get(request.bundle).predict(await samplesOf(request), request.rate),
  async view({ bundle, view, subset, groups, texts }) {
    let seen = recognizers.get(bundle);
    if (subset) seen = seen.subset(subset);
    if (groups ?? texts) seen = seen.grouped(groups ?? parseGroups(texts));
    recognizers.set(view, seen);
    return seen.labels;
  },
  async together(request) {
    const samples = await samplesOf(request);
    const recognizer = recognizers.get(request.bundle);
    return Promise.all(Array.from({ length: request.times }, () => recognizer.predict(samples)));
  },
  async stream({ bundle, rate, window, hop, cuts, again, vad, channel, ...request }) {
    const options = { sampleRate: rate, window, hop, vad: vad && ((frame) => frame[0] > 0), channel };
    const stream = recognizers.get(bundle).stream(options);
    const samples = await samplesOf(request);
    const length = Array.isArray(samples) ? samples[0].length : samples.length;
    // Not awaited one by one: the stream keeps the order.
    const found = [0, ...cuts].map((cut, i) => stream.feed(part(samples, cut, cuts[i] ?? length)));
    if (again) found.push(stream.reset().then(() => []), stream.feed(samples));
    found.push(stream.close());
    return (await Promise.all(found)).flat();
  },
  async read({ file, rate }) {
    return Array.from(await readAudio(await readFile(file), rate));
  },
  resample: async (request) => Array.from(resample(await samplesOf(request), request.rate, request.target)),
  async spoiled({ bundle }) {
    const stream = recognizers.get(bundle).stream({ window: 0.5 });
    const errors = [];
    for (const chunk of [[], "text", [1, 2], [new Float32Array(2), new Float32Array(3)], Float32Array.of(99)]) {
      await stream.feed(chunk).catch((error) => errors.push(`${error.name}: ${error.message}`));
    }
    const found = await stream.feed(new Float32Array(8000).fill(NaN));
    await stream.close();
    await stream.feed(new Float32Array(1)).catch((error) => errors.push(`${error.name}: ${error.message}`));
    await stream.reset();
    return { errors, found: [...found, ...(await stream.feed(new Float32Array(8000)))] };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { call, ...request } = JSON.parse(line);
  let answer;
  try {
    answer = { result: await calls[call](request) };
  } catch (error) {
    answer = { error: `${error.name}: ${error.message}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
