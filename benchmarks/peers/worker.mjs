// Runs mifuse.js in Node for the benchmark, as worker.py does Python: `node worker.mjs CALL BUNDLE:PRECISION AUDIO.npy`.
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { Recognizer } from "../../runtime/web/mifuse.js";

const begin = performance.now();
const [, model, audio] = process.argv.slice(2);
const cut = model.lastIndexOf(":");
const file = await readFile(audio);
const samples = new Float32Array(file.buffer.slice(file.byteOffset + 10 + file.readUInt16LE(8), file.byteOffset + file.length));
const recognizer = await Recognizer.load(model.slice(0, cut), { precision: model.slice(cut + 1) });
const loaded = performance.now();
await recognizer.predict(samples.subarray(0, 48000));
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
const seconds = (until) => (until - begin) / 1000;
say({ load_s: seconds(loaded), first_s: seconds(performance.now()), peak_mb: (process.resourceUsage().maxRSS * 1024) / 1e6 });

for await (const line of createInterface({ input: process.stdin })) {
  const [length, calls] = line.split(" ").map(Number);
  const part = samples.subarray(0, length * 16000);
  const times = [];
  for (let call = 0; call < calls; call++) {
    const cpu = process.cpuUsage();
    const start = performance.now();
    await recognizer.predict(part);
    const wall = performance.now() - start;
    const { user, system } = process.cpuUsage(cpu);
    times.push([wall, (user + system) / 1000]);
  }
  say(times);
}
