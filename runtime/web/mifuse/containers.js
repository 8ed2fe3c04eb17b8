/**
 * Where the samples lie in a WAV, RF64, W64, AIFF or AU file, and how they are coded: as
 * `mifuse_runtime/containers.py`, which says more. Lengths that headers declare are checked against what is there.
 */
import { AudioError } from "./errors.js";

const CUT = "copy or record it again";
const MORE = "audio follows in a second chunk data, which most programs pass over: save it again as one";
const CHUNKS = 100_000; // of a file, at most
const SLACK = 1024; // bytes that a declared length may be off, if they are not much of it
const EXTENSIBLE = 0xfffe;
const W64 = "2e91cf11a5d628db04c10000"; // behind `riff`
const TAGS = {
  "1 1": "u1", "1 2": "i2", "1 3": "i3", "1 4": "i4", "3 4": "f4", "3 8": "f8", "6 1": "alaw", "7 1": "mulaw",
};
const AIFC = { NONE: "", twos: "", in24: "", in32: "", sowt: "<", "raw ": "u1", fl32: ">f4", FL32: ">f4" };
Object.assign(AIFC, { fl64: ">f8", FL64: ">f8", ulaw: "mulaw", ULAW: "mulaw", alaw: "alaw", ALAW: "alaw" });
const AU = { 1: "mulaw", 2: "i1", 3: ">i2", 4: ">i3", 5: ">i4", 6: ">f4", 7: ">f8", 27: "alaw" };

/** Rate, channels, coding, start and length in bytes; null for what is none of these, coding null for another's. */
export function layout(bytes) {
  const file = new Reader(bytes);
  const [kind, form] = [file.name(0), file.name(8)];
  if (["RIFF", "RIFX", "RF64", "BW64"].includes(kind) && form === "WAVE") return wav(file, kind !== "RIFX", 12);
  if (kind === "riff" && file.hex(4, 16) === W64) return wav(file, true, 40, true);
  if (kind === "FORM" && ["AIFF", "AIFC"].includes(form)) return aiff(file);
  if (kind === ".snd" || kind === "dns.") return au(file, kind === "dns.");
  return null;
}

class Reader {
  constructor(bytes) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.size = bytes.length;
    this.bytes = bytes;
  }

  name(at) {
    return String.fromCharCode(...this.bytes.subarray(at, at + 4));
  }

  hex(at, end) {
    return Array.from(this.bytes.subarray(at, end), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  printable(at) {
    const name = this.bytes.subarray(at, at + 4);
    return name.length === 4 && name.every((byte) => byte >= 32 && byte < 127);
  }
}

function wav(file, little, at, w64 = false) {
  let [found, audio, long] = [null, null, 0]; // long: what a chunk ds64 says of the length of the audio
  for (const [name, start, length] of chunks(file, little, at, w64)) {
    if (name === "fmt ") found = format(file, start, Math.min(length, 40), little);
    else if (name === "ds64" && length >= 24 && start + 16 <= file.size) long = Number(file.view.getBigUint64(start + 8, true));
    else if (name === "data" && audio?.length) {
      if (length) throw new AudioError(MORE);
    } else if (name === "data" && found) {
      const declared = length === 0xffffffff && long ? long : length;
      audio = { ...found, start, length: there(file, start, declared) };
      if (audio.length !== length) return audio; // nobody knows where the next chunk is
    }
  }
  if (!audio) throw new AudioError(`the file is cut short, it has no audio data: ${CUT}`);
  return audio;
}

/** Name, where its content starts and how long it says that it is, of each chunk from `at` on. */
function* chunks(file, little, at, w64) {
  const header = w64 ? 24 : 8;
  for (let count = 0; count < CHUNKS && at + header <= file.size; count += 1) {
    let length = file.view.getUint32(at + 4, little);
    if (w64) length = Math.max(0, Number(file.view.getBigInt64(at + 16, true)) - header);
    yield [file.name(at), at + header, length];
    at = next(file, at + header, length, w64 ? 8 : 2);
  }
}

function format({ view, size }, at, length, little) {
  if (Math.min(length, size - at) < 16) return null;
  let tag = view.getUint16(at, little);
  const [channels, rate] = [view.getUint16(at + 2, little), view.getUint32(at + 4, little)];
  const [block, bits] = [view.getUint16(at + 12, little), view.getUint16(at + 14, little)];
  if (tag === EXTENSIBLE && Math.min(length, size - at) >= 26) tag = view.getUint16(at + 24, little);
  // 24 bits may sit in four bytes, 12 in two: the block says it.
  const whole = channels && block % channels === 0 ? block / channels : 0;
  const width = whole && bits <= 8 * whole && whole <= 8 ? whole : Math.ceil(bits / 8);
  const coding = TAGS[`${tag} ${width}`] ?? null;
  const plain = coding === null || coding.length > 2 || coding === "u1";
  return { rate, channels, coding: plain ? coding : (little ? "<" : ">") + coding };
}

function aiff(file) {
  const { view, size } = file;
  let [at, found] = [12, null];
  while (at + 8 <= size) {
    const [name, length] = [file.name(at), view.getUint32(at + 4, false)];
    if (name === "COMM") {
      if (Math.min(length, size - at - 8) < 18) break;
      const [channels, bits] = [view.getInt16(at + 8, false), view.getInt16(at + 14, false)];
      const mantissa = view.getUint32(at + 18, false) * 2 ** 32 + view.getUint32(at + 22, false);
      const rate = mantissa * 2 ** (Math.min(view.getUint16(at + 16, false) & 0x7fff, 16446) - 16446);
      const own = AIFC[length >= 22 ? file.name(at + 26) : "NONE"] ?? null;
      let coding = own === "" || own === "<" ? `${own || ">"}i${Math.ceil(bits / 8)}` : own;
      if (coding?.endsWith("i1")) coding = "i1";
      found = { rate: Math.round(Math.min(rate, 1e9)), channels: Math.max(0, channels), coding };
    } else if (name === "SSND" && found) {
      const offset = at + 12 <= size ? view.getUint32(at + 8, false) : 0;
      const start = at + 16 + offset;
      return { ...found, start, length: there(file, start, Math.max(0, length - 8 - offset)) };
    }
    at = next(file, at + 8, length, 2);
  }
  throw new AudioError(`the file is cut short, it has no audio data: ${CUT}`);
}

function au(file, little) {
  if (file.size < 24) throw new AudioError(`the file is cut short, it has no audio data: ${CUT}`);
  const [start, declared, encoding, rate, channels] = [4, 8, 12, 16, 20].map((at) => file.view.getUint32(at, little));
  let coding = AU[encoding] ?? null;
  if (coding?.startsWith(">") && little) coding = `<${coding.slice(1)}`;
  return { rate, channels, coding, start, length: there(file, start, declared) };
}

/** Where the next chunk begins: behind padding, unless a writer forgot it. */
function next(file, start, length, multiple) {
  const end = start + length;
  const padded = Math.ceil(end / multiple) * multiple;
  return multiple === 2 && padded > end && file.printable(end) ? end : padded;
}

/** Bytes of audio from `start` on, of a file whose header declares some. */
function there(file, start, declared) {
  const left = Math.max(0, file.size - start);
  if (declared - left > Math.min(SLACK, Math.max(64, Math.floor(declared / 64))) && !unknown(declared)) {
    throw new AudioError(`the file is cut short (${left} of ${declared} bytes of audio): ${CUT}`);
  }
  if (declared >= left) return left;
  if (left - declared <= SLACK) return declared || (chunk(file, start, left) ? 0 : left);
  return chunk(file, start + declared + (declared % 2), left - declared) ? declared : left;
}

/** Whether a length is one that programs write when they cannot know it: the largest, or nearly. */
const unknown = (declared) =>
  (declared >= 0x7fff0000 && declared < 0x80010000) || (declared >= 0xffff0000 && declared <= 0xffffffff) || declared >= 2 ** 47;

/** Whether a chunk begins here that fits in the bytes left: no audio then. */
function chunk(file, at, left) {
  if (at + 8 > file.size || !file.printable(at)) return false;
  return Math.min(file.view.getUint32(at + 4, true), file.view.getUint32(at + 4, false)) <= left;
}
