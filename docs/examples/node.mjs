import { readFile } from "node:fs/promises";
import { readAudio, Recognizer } from "mifuse-runtime-web";

const recognizer = await Recognizer.load("bundle/");
for (const path of process.argv.slice(2)) {
  const samples = await readAudio(await readFile(path), recognizer.sampleRate);
  const { label, scores } = await recognizer.predict(samples);
  console.log(path, label, scores[label].toFixed(2));
}
