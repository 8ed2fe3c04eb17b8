/** Samples as callers have them, and audio files, to mono Float32Array at the model's rate. */
import { AudioError } from "./errors.js";
import { resample } from "./resample.js";

const [SILENCE_DB, SILENCE_FRAME] = [40, 0.025]; // dB below the loudest frame, and seconds of a frame
const MAX_PEAK = 8; // decoders overshoot full scale a little; more means integers passed as floats
const DECODED = 48_000; // Hz: what compressed files are decoded at
const [PCM, FLOAT, EXTENSIBLE] = [1, 3, 0xfffe];

/**
 * Mono samples: floats in [-1, 1] or an Int16Array; several channels as an array of them, which are averaged.
 *
 * @param {Float32Array | Float64Array | Int16Array | Array<Float32Array | Float64Array | Int16Array>} samples
 * @returns {Float32Array}
 */
export function mono(samples) {
  const channels = Array.isArray(samples) ? samples : [samples];
  for (const channel of channels) {
    if (![Float32Array, Float64Array, Int16Array].some((type) => channel instanceof type)) {
      throw new AudioError("samples are not a Float32Array in [-1, 1] or an Int16Array, nor an array of channels");
    }
    if (channel.length !== channels[0].length) throw new AudioError("the channels differ in length");
  }
  if (!channels.length) throw new AudioError("there are no channels");
  const out = new Float32Array(channels[0].length);
  for (const channel of channels) {
    const scale = 1 / channels.length / (channel instanceof Int16Array ? 32768 : 1);
    for (let i = 0; i < out.length; i++) out[i] += scale * channel[i];
  }
  return out;
}

/** The samples, if they can be recognised; throws an AudioError if not. */
export function checked(samples) {
  if (!samples.length) throw new AudioError("there are no samples: the audio is empty");
  let peak = 0;
  for (const sample of samples) {
    // NaN would pass through a maximum of comparisons.
    if (!Number.isFinite(sample)) {
      throw new AudioError("samples hold NaN or infinity: repair the recording, or set such samples to 0");
    }
    peak = Math.max(peak, Math.abs(sample));
  }
  if (peak > MAX_PEAK) {
    throw new AudioError(`float samples reach ${peak}: divide them to [-1, 1], or pass an Int16Array`);
  }
  return samples;
}

/**
 * The samples without the leading and trailing frames that are more than `SILENCE_DB` below the loudest one; all of
 * them when every frame is silent.
 */
export function trimSilence(samples, rate) {
  const frame = Math.max(1, Math.floor(rate * SILENCE_FRAME));
  const energy = new Float64Array(Math.ceil(samples.length / frame));
  samples.forEach((sample, i) => (energy[Math.floor(i / frame)] += sample * sample));
  const least = energy.reduce((most, value) => Math.max(most, value), 0) * 10 ** (-SILENCE_DB / 10);
  const last = energy.findLastIndex((value) => value >= least);
  return samples.subarray(energy.findIndex((value) => value >= least) * frame, (last + 1) * frame);
}

/**
 * An audio file as mono samples at `sampleRate` Hz. WAV (PCM of 8 to 32 bits, float) is read as in Python;
 * other formats by the browser's decoder.
 *
 * @param {Blob | ArrayBuffer | Uint8Array} source
 * @returns {Promise<Float32Array>}
 */
export async function readAudio(source, sampleRate = 16_000) {
  const bytes = new Uint8Array(source instanceof Blob ? await source.arrayBuffer() : source);
  if (!bytes.length) throw new AudioError("the file is empty (0 bytes)");
  const { channels, rate } = wav(bytes) ?? (await decoded(bytes));
  return checked(resample(checked(mono(channels)), rate, sampleRate));
}

/** Channels and rate of a WAV file; null for what is not one, or is compressed. */
function wav(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const name = (at) => String.fromCharCode(...bytes.subarray(at, at + 4));
  if (name(0) !== "RIFF" || name(8) !== "WAVE") return null;
  let format;
  for (let at = 12, length; at + 8 <= bytes.length; at += 8 + length + (length % 2)) {
    length = view.getUint32(at + 4, true);
    const body = at + 8;
    if (name(at) === "fmt " && length >= 16 && body + length <= bytes.length) {
      const tag = view.getUint16(body, true);
      const [count, bits] = [view.getUint16(body + 2, true), view.getUint16(body + 14, true)];
      const kind = tag === EXTENSIBLE && length >= 26 ? view.getUint16(body + 24, true) : tag;
      format = { kind, count, bits, rate: view.getUint32(body + 4, true) };
    } else if (name(at) === "data" && format) {
      const left = bytes.length - body;
      if (length === 0xffffffff) length = left; // written to a pipe, length unknown
      if (length > left) {
        throw new AudioError(`the file is cut short (${left} of ${length} bytes of audio): copy or record it again`);
      }
      return samplesOf(new DataView(view.buffer, view.byteOffset + body, length), format);
    }
  }
  throw new AudioError("the file is cut short, it has no audio data: copy or record it again");
}

function samplesOf(view, { kind, count, bits, rate }) {
  const read = {
    [`${PCM} 8`]: (at) => view.getUint8(at) / 128 - 1, // 8 bits are unsigned
    [`${PCM} 16`]: (at) => view.getInt16(at, true) / 2 ** 15,
    [`${PCM} 24`]: (at) => (view.getInt8(at + 2) * 65536 + view.getUint16(at, true)) / 2 ** 23,
    [`${PCM} 32`]: (at) => view.getInt32(at, true) / 2 ** 31,
    [`${FLOAT} 32`]: (at) => view.getFloat32(at, true),
    [`${FLOAT} 64`]: (at) => view.getFloat64(at, true),
  }[`${kind} ${bits}`];
  if (!read || !count) return null;
  const [width, frame] = [bits / 8, (bits / 8) * count];
  const size = Math.floor(view.byteLength / frame);
  const channels = Array.from({ length: count }, (_, channel) => {
    const samples = new Float32Array(size);
    for (let i = 0; i < size; i++) samples[i] = read(i * frame + channel * width);
    return samples;
  });
  return { channels, rate };
}

async function decoded(bytes) {
  if (!globalThis.OfflineAudioContext) throw new AudioError("not a PCM or float WAV file: convert it to WAV");
  try {
    // A copy: the decoder takes its input away.
    const sound = await new OfflineAudioContext(1, 1, DECODED).decodeAudioData(bytes.slice().buffer);
    const channels = Array.from({ length: sound.numberOfChannels }, (_, i) => sound.getChannelData(i));
    return { channels, rate: DECODED };
  } catch (error) {
    throw new AudioError(`not an audio file that can be read (${error.message})`);
  }
}
