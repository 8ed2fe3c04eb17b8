/** The page: a recording or the microphone in, emotions over time out. */
import { Chart, COLOURS } from "./chart.js";
import { openMicrophone, readAudio, Recognizer } from "./mifuse.js";
import { mono, readChannels } from "./mifuse/audio.js";
import { parseGroups } from "./mifuse/groups.js";
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

const HOP = 0.25; // seconds between predictions
const WHOLE = 60; // seconds: longer recordings are only looked at window by window
const ROWS = 1000; // of the table
const DEMO = "demo/"; // the ready bundle and its call, for who has no bundle yet

const page = Object.fromEntries(Array.from(document.querySelectorAll("[id]"), (node) => [node.id, node]));
const chart = new Chart(page.wave, page.track, page.lines);
let loaded; // the bundle with all of its emotions
let recognizer; // with those that are shown
let last; // file
let microphone;
let activity = 0; // counts what was started: an earlier one stops when it sees that it is not the latest
let times = []; // ms

const say = (text) => (page.message.textContent = text);

function element(name, text = "", attributes = {}) {
  const node = document.createElement(name);
  node.textContent = text;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

/** Load a bundle from the address, or from files that the user chose. */
async function load(source, name) {
  await stop();
  const begin = performance.now();
  const next = await Recognizer.load(source, { ort });
  await loaded?.release();
  recognizer = loaded = next;
  for (const input of [page.file, page.microphone, page.groups]) input.disabled = false;
  page.demo.hidden = !recognizer.demo;
  page.example.hidden = name !== `${DEMO}bundle/`;
  const spent = Math.round(performance.now() - begin);
  clear();
  say(`${name}: ${recognizer.precision}, loaded in ${spent} ms. Open a recording, drop one here, or speak.`);
  if (page.groups.value.trim()) await regroup();
}

/**
 * Show the emotions that the field names, the others not, and several as one: `neutral, negative=angry+sad`.
 * Groups alone leave the others as they are, an empty field all of them.
 */
async function regroup() {
  const parts = page.groups.value.split(",").filter((part) => part.trim());
  const names = parts.filter((part) => !part.includes("=")).map((part) => part.trim());
  const groups = parseGroups(parts.filter((part) => part.includes("=")));
  const chosen = names.length ? loaded.subset([...new Set([...names, ...Object.values(groups).flat()])]) : loaded;
  const grouped = parts.length ? chosen.grouped(groups) : chosen;
  await stop();
  recognizer = grouped;
  clear();
  say(`Shown: ${shown().join(", ")}.`);
  if (last) await recognise(last);
}

function clear(seconds) {
  times = [];
  chart.clear(recognizer.labels, seconds);
  page.state.textContent = "-";
  page.clip.textContent = page.latency.textContent = "";
  page.rows.replaceChildren();
  page.head.replaceChildren(...["from", "to", "state", ...shown()].map((name) => element("th", name)));
  page.scores.replaceChildren(
    ...shown().map((label, i) => {
      const row = element("li");
      const track = element("span", "", { class: "track", "aria-hidden": "true" });
      const bar = element("div", "", { class: "bar" });
      bar.style.background = COLOURS[i % COLOURS.length];
      track.append(bar);
      row.append(element("span", label), track, element("output", "-"));
      return row;
    }),
  );
}

/** What has a bar and a column: the emotions, then the dimensions. */
const shown = () => [...recognizer.labels, ...Object.keys(recognizer.dimensions)];

/** Feed a chunk; show what comes, in one of the chart's tracks, and how long it took. */
async function feed(stream, samples, track) {
  const begin = performance.now();
  const found = await stream.feed(samples);
  if (found.some((prediction) => prediction.speech)) times.push((performance.now() - begin) / found.length);
  for (const prediction of found) show(prediction, track);
}

function show(prediction, track) {
  const { start, end, state, scores, dimensions } = prediction;
  chart.addPrediction(prediction, track);
  if (page.state.textContent !== state) page.state.textContent = state; // read aloud when it changes
  const all = { ...scores, ...dimensions }; // no dimensions without speech
  for (const [i, row] of Array.from(page.scores.children).entries()) {
    const [name, value] = [shown()[i], all[shown()[i]]];
    const [low, high] = recognizer.dimensions[name] ?? [0, 1];
    row.querySelector(".bar").style.width = `${(100 * ((value ?? low) - low)) / (high - low)}%`;
    row.querySelector("output").value = value?.toFixed(2) ?? "-";
  }
  const cells = [start.toFixed(2), end.toFixed(2), state, ...shown().map((name) => all[name]?.toFixed(4) ?? "")];
  const row = element("tr");
  row.append(...cells.map((text) => element("td", text)));
  page.rows.prepend(row);
  if (page.rows.children.length > ROWS) page.rows.lastChild.remove();
  if (times.length) {
    times = times.slice(-100);
    const middle = times.toSorted((one, other) => one - other)[times.length >> 1];
    page.latency.textContent = `${middle.toFixed(1)} ms a window of ${recognizer.window} s`;
  }
}

async function recognise(file) {
  await stop();
  last = file;
  const mine = activity;
  say(`${file.name} …`);
  const rate = recognizer.sampleRate;
  const choice = page.channel.value;
  let seconds = 0;
  const count = choice === "each" ? (await readChannels(file)).channels.length : 1;
  for (let number = 0; number < count && mine === activity; number++) {
    const channel = choice === "each" ? number : choice === "mix" ? choice : Number(choice);
    const samples = await readAudio(file, rate, channel);
    if (number === 0) clear(samples.length / rate);
    if (count > 1) chart.begin(`channel ${number}`);
    await recogniseChannel(samples, rate, mine);
    seconds = samples.length / rate;
  }
  if (mine === activity) say(`${file.name}: ${seconds.toFixed(1)} s`);
}

/** The emotion of a channel as a whole, where it is short, and window by window. */
async function recogniseChannel(samples, rate, mine) {
  if (samples.length <= WHOLE * rate) {
    const { label, scores } = await recognizer.predict(samples);
    const said = scores[label] === undefined ? label : `${label} ${scores[label].toFixed(2)}`;
    page.clip.textContent += `${page.clip.textContent ? ", " : "as a whole: "}${said}`;
  }
  const stream = recognizer.stream({ hop: HOP });
  const size = Math.round(0.5 * rate);
  for (let at = 0; at < samples.length && mine === activity; at += size) {
    const part = samples.subarray(at, at + size);
    await feed(stream, part);
    chart.addSamples(part, rate);
    await new Promise((resolve) => setTimeout(resolve)); // let the page draw and answer
  }
  if (mine === activity) for (const prediction of await stream.close()) show(prediction);
}

async function listen() {
  await stop();
  const mine = activity;
  const choice = page.channel.value;
  const opened = await openMicrophone(choice === "mix" ? 1 : 2);
  if (mine !== activity) return void (await opened.close());
  microphone = opened;
  clear();
  page.microphone.setAttribute("aria-pressed", "true");
  page.microphone.textContent = "Stop listening";
  say(`Listening. The first answer comes after ${recognizer.window} s.`);
  const { sampleRate, channels } = microphone;
  const chosen = choice === "each" ? Array.from({ length: channels }, (_, i) => i) : [choice === "mix" ? choice : Number(choice)];
  const streams = chosen.map((channel) => recognizer.stream({ sampleRate, hop: HOP, channel }));
  if (streams.length > 1) chosen.forEach((channel) => chart.begin(`channel ${channel}`));
  for await (const chunk of microphone) {
    for (const [track, stream] of streams.entries()) await feed(stream, chunk, track);
    chart.addSamples(mono(chunk, streams.length > 1 ? "mix" : chosen[0], () => {}), sampleRate);
    if (microphone?.dropped) say("This device is too slow for the microphone: audio is lost.");
  }
  if (mine === activity) await stop(); // unplugged
}

async function stop() {
  activity++;
  const open = microphone;
  microphone = null;
  page.microphone.setAttribute("aria-pressed", "false");
  page.microphone.textContent = "Use the microphone";
  if (open) say("");
  await open?.close();
}

/** Do it, and say in the page what went wrong. */
const trying = (work) => work().catch((error) => stop().then(() => say(error.message)));

page.microphone.addEventListener("click", () => trying(microphone ? stop : listen));
page.file.addEventListener("change", () => {
  const [file] = page.file.files;
  page.file.value = ""; // the same file may be opened again
  if (file) trying(() => recognise(file));
});
page.groups.addEventListener("change", () => trying(regroup));
page.folder.addEventListener("change", () => {
  const files = Array.from(page.folder.files);
  if (!files.length) return;
  const inside = (file) => file.webkitRelativePath.split("/").slice(1).join("/");
  const read = async (name) => {
    const file = files.find((candidate) => inside(candidate) === name);
    if (!file) throw new Error("the folder has no such file");
    return file.arrayBuffer();
  };
  trying(() => load(read, files[0].webkitRelativePath.split("/")[0]));
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const [file] = event.dataTransfer.files;
  if (file && recognizer) trying(() => recognise(file));
});

page.example.addEventListener("click", () =>
  trying(async () => {
    const response = await fetch(`${DEMO}call.wav`);
    if (!response.ok) throw new Error(`${response.url}: ${response.status} ${response.statusText}`);
    await recognise(new File([await response.blob()], "call.wav"));
  }),
);

/** The bundle that the address names, or the one beside the page, or the demo. */
async function open() {
  const named = new URLSearchParams(location.search).get("bundle");
  const beside = named ?? ((await fetch("bundle/bundle.json", { method: "HEAD" })).ok ? "bundle/" : `${DEMO}bundle/`);
  await load(beside, beside);
}
trying(open).then(() => recognizer || say(`${page.message.textContent} Choose a bundle.`));
