/** The bundle: `bundle.json` and the model file that it names, checked against its SHA-256. */
import { NO_SPEECH, NOT_SURE } from "./decision.js";
import { BundleError } from "./errors.js";

const NAME = "bundle.json";
const SCHEMA = 1;
const MAX_JSON = 1 << 20; // bytes: a bundle.json holds a few kB
const MAX_FILE = 1 << 29; // bytes: the largest student has 4 MB, a base model of transformers in float 380
const MAX_NAMES = 1000; // labels
const HOP = 256; // samples between frames of the front end, if the bundle does not say
const REQUIRED = ["schema", "labels", "sample_rate", "window", "input", "output", "default", "models", "files"];

/** How a stream decides: default, lowest and highest value; `mifuse_runtime/settings.py` explains each. */
export const SETTINGS = {
  abstain: [0, 0, 1],
  smoothing: [0.5, 0, 60],
  margin: [0.1, 0, 1],
  speech: [0.1, 0, 1],
  level: [-60, -200, 0],
  voice: [0.5, 0, 1],
  flatness: [0.42, 0, 1], // of bundles from before the gate had a network; not used
};

/**
 * Read a bundle and the ONNX model in it; keys that this module does not know are left alone.
 *
 * @param {string | URL | ((name: string) => Promise<BufferSource>)} source address or folder, or what reads a file
 * @param {string} [precision] "fp32" or "int8"; the bundle's default if left out
 * @returns {Promise<{content: object, settings: Record<string, number>, precision: string, grid: number,
 *   model: Uint8Array, demo: boolean}>} `grid`: samples between the places where a stream's windows may begin
 */
export async function loadBundle(source, precision) {
  const read = reader(source);
  const content = parsed(await read(NAME, MAX_JSON));
  const problem = problems(content).next().value;
  if (problem) throw new BundleError(`${NAME}: ${problem}; export the bundle again`);
  precision ??= content.default;
  const name = content.models[precision]?.onnxruntime;
  if (!name) {
    const have = Object.keys(content.models).join(", ");
    throw new BundleError(`the bundle has no ${precision} model for onnxruntime: it has ${have}`);
  }
  const model = await read(name, MAX_FILE);
  if ((await sha256(model)) !== content.files[name].toLowerCase()) {
    throw new BundleError(`${name} is not as exported (SHA-256 differs): copy the bundle again`);
  }
  const defaults = Object.entries(SETTINGS).map(([key, [value]]) => [key, value]);
  const settings = { ...Object.fromEntries(defaults), ...content.stream };
  // Python runs the part behind the front end where a bundle has it apart, and windows then begin with a frame.
  // The whole model, which runs here, says the same of the same samples.
  const grid = content.bodies?.[precision]?.onnxruntime ? (content.frontend?.hop ?? HOP) : 1;
  return { content, settings, precision, grid, model, demo: content.provenance?.demo === true };
}

function parsed(bytes) {
  let content;
  try {
    content = JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new BundleError(`${NAME} is not JSON (${error.message}): export the bundle again`);
  }
  if (!isObject(content)) throw new BundleError(`${NAME} is not a JSON object: export the bundle again`);
  const { schema } = content;
  if (Number.isInteger(schema) && schema > SCHEMA) {
    throw new BundleError(`${NAME} has schema ${schema}, this runtime reads ${SCHEMA}: upgrade mifuse-runtime-web`);
  }
  return content;
}

/** What is wrong with the values. */
function* problems(content) {
  for (const key of REQUIRED) if (!(key in content)) yield `it has no ${JSON.stringify(key)}`;
  const { schema, labels, sample_rate: rate, window, models, files, stream = {} } = content;
  if (schema !== SCHEMA) yield `it has schema ${JSON.stringify(schema)}, this runtime reads ${SCHEMA}`;
  for (const key of ["input", "output", "models", "files", "stream", "dimensions"]) {
    if (!isObject(content[key] ?? {})) yield `${key} is not a JSON object`;
  }
  const named = Array.isArray(labels) && labels.every((label) => typeof label === "string" && label);
  const alone = named && !labels.length && Object.keys(content.dimensions ?? {}).length > 0; // dimensions
  if (!named || (labels.length < 2 && !alone) || labels.length > MAX_NAMES || new Set(labels).size !== labels.length) {
    yield `labels are ${JSON.stringify(labels)}, two or more different names expected`;
  }
  if (labels.includes(NO_SPEECH) || labels.includes(NOT_SURE)) {
    yield `the labels "${NO_SPEECH}" and "${NOT_SURE}" are the runtime's own`;
  }
  if (!Number.isInteger(rate) || rate < 1000 || rate > 384_000) yield `sample_rate is ${rate}`;
  if (!(typeof window === "number" && window >= 0.1 && window <= 60)) yield `window is ${window}`;
  for (const [key, [, low, high]] of Object.entries(SETTINGS)) {
    const value = stream[key] ?? low;
    if (typeof value !== "number" || !(value >= low && value <= high)) {
      yield `stream.${key} is ${JSON.stringify(value)}, ${low} to ${high} expected`;
    }
  }
  for (const [name, ends] of Object.entries(content.dimensions ?? {})) {
    const pair = Array.isArray(ends) && ends.length === 2 && ends.every(Number.isFinite) && ends[0] < ends[1];
    if (!pair || labels.includes(name)) yield `the dimension ${JSON.stringify(name)} is ${JSON.stringify(ends)}`;
  }
  const { hop = HOP } = content.frontend ?? {};
  if (!Number.isInteger(hop) || hop < 8 || hop > 4096) yield `frontend.hop is ${JSON.stringify(hop)}`;
  for (const engines of Object.values(models)) {
    const name = engines?.onnxruntime;
    if (name === undefined) continue;
    if (typeof name !== "string" || climbs(name)) yield `the file name ${JSON.stringify(name)} leaves the bundle`;
    if (!/^[0-9a-f]{64}$/i.test(files[name])) yield `${name} has no SHA-256 in files`;
  }
}

/** Whether a name could lead out of the bundle, as a path or as an address. */
const climbs = (name) => !name || /[\\?#%:]/.test(name) || name.startsWith("/") || name.split("/").includes("..");

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) {
    throw new BundleError("this page cannot check hashes: serve it over https, or from localhost");
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** (name, most bytes) -> content, from a folder, an address or a function of the caller's. */
function reader(source) {
  const folder = String(source).replace(/\/*$/, "/");
  // By name, not by import: bundlers for browsers refuse modules of Node's.
  const node = typeof document === "undefined" && globalThis.process?.getBuiltinModule;
  const local = node && !/^https?:/.test(folder);
  const open = typeof source === "function" ? source : local ? fromDisk(folder) : fromAddress(folder);
  return async (name, most) => {
    let content;
    try {
      content = await open(name);
    } catch (error) {
      throw new BundleError(`${name} cannot be read (${error.message}): is this a bundle of \`mifuse export\`?`);
    }
    if (content.byteLength > most) throw new BundleError(`${name} is larger than ${most} bytes: this is no student`);
    return ArrayBuffer.isView(content) ? content : new Uint8Array(content);
  };
}

function fromDisk(folder) {
  const { readFile } = process.getBuiltinModule("node:fs/promises");
  return (name) => readFile(folder.startsWith("file:") ? new URL(folder + name) : folder + name);
}

function fromAddress(folder) {
  return async (name) => {
    const response = await fetch(folder + name);
    if (!response.ok) throw new Error(`${response.url}: ${response.status} ${response.statusText}`);
    return response.arrayBuffer();
  };
}
