// Runs the hook in a component without a page: what it shows of chunks, of a refused microphone, and after it is gone.
import { readFile } from "node:fs/promises";
import { createElement } from "react";
import { create } from "react-test-renderer";
import { useEmotion } from "./useEmotion.js";

const rendered = () => new Promise((done) => setTimeout(done, 20));
const bytes = await readFile("speech.f32");
const samples = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));

function microphone(endless) {
  const device = {
    sampleRate: 16000,
    closed: 0,
    close: async () => device.closed++,
    async *[Symbol.asyncIterator]() {
      for (let at = 0; !device.closed && (endless || at < samples.length); at += 1600) {
        await new Promise(setImmediate); // React renders meanwhile
        yield [samples.subarray(at % samples.length, (at % samples.length) + 1600)];
      }
    },
  };
  return device;
}

async function mounted(open) {
  const seen = [];
  let hook;
  const Probe = () => {
    hook = useEmotion("bundle/", { open });
    seen.push(hook.state);
    return null;
  };
  let root;
  root = create(createElement(Probe));
  await rendered();
  return { seen, root, hook: () => hook };
}

const device = microphone(false);
const one = await mounted(async () => device);
await Promise.all([one.hook().start(), one.hook().start()]);
await rendered();
const { state, listening, error } = one.hook();
const refused = await mounted(() => Promise.reject(new Error("not allowed")));
await refused.hook().start();
await rendered();
const left = microphone(true);
const gone = await mounted(async () => left);
const ended = gone.hook().start();
await rendered();
gone.root.unmount();
await ended;
const result = { seen: one.seen, state, listening, error, closed: device.closed };
console.log(JSON.stringify({ ...result, refused: refused.hook().error, still: refused.hook().listening, left: left.closed }));
