/** Samples as callers have them, and audio files, to mono Float32Array at the model's rate. */
import { layout } from "./containers.js";
import { AudioError } from "./errors.js";
import { resample } from "./resample.js";

const [SILENCE_DB, SILENCE_FRAME] = [40, 0.025]; // dB below the loudest frame, and seconds of a frame
const MAX_PEAK = 8; // decoders overshoot full scale a little; more means integers passed as floats
const DECODED = 48_000; // Hz: what compressed files are decoded at
const MAX_CHANNELS = 64;
const APPLE_DOUBLE = [0, 5, 22, 7];
const CANCELLED = 1e-3; // of the channels' power, 30 dB down: a mean with less is of channels that cancel
const FAINT = 1e-9; // power, -90 dBFS: quieter channels are silence
const ENCODINGS = { int16: "<i2", float32: "<f4", mulaw: "mulaw", alaw: "alaw" };

/**
 * Mono samples: floats in [-1, 1] or an Int16Array; several channels as an array of them: their mean, or one.
 * Of channels that cancel each other (opposite phase) the first is taken, which `warn` is told.
 *
 * @param {Float32Array | Float64Array | Int16Array | Array<Float32Array | Float64Array | Int16Array>} samples
 * @returns {Float32Array}
 */
export function mono(samples, channel = "mix", warn = console.warn) {
  const channels = Array.isArray(samples) ? samples : [samples];
  for (const channel of channels) {
    if (![Float32Array, Float64Array, Int16Array].some((type) => channel instanceof type)) {
      throw new AudioError("samples are not a Float32Array in [-1, 1] or an Int16Array, nor an array of channels");
    }
    if (channel.length !== channels[0].length) throw new AudioError("the channels differ in length");
  }
  if (!channels.length) throw new AudioError("there are no channels");
  const chosen = channelIndex(channel);
  if (chosen >= channels.length) {
    throw new AudioError(`there is no channel ${chosen}: there are ${channels.length}, counted from 0`);
  }
  if (chosen >= 0) return mixed([channels[chosen]]);
  const mean = mixed(channels);
  const power = (values) => values.reduce((sum, value) => sum + value * value, 0);
  if (channels.length > 1) {
    const each = channels.reduce((sum, samples) => sum + power(mixed([samples])), 0) / channels.length;
    if (each > FAINT * mean.length && power(mean) < CANCELLED * each) {
      warn("mifuse: the channels cancel each other (opposite phase): the first is taken");
      return mixed([channels[0]]);
    }
  }
  return mean;
}

/** Number of a channel, -1 for the mean of all. */
export function channelIndex(channel) {
  if (channel === "mix") return -1;
  const index = { left: 0, right: 1 }[channel] ?? channel;
  if (!(Number.isInteger(index) && index >= 0)) {
    throw new AudioError(`channel ${channel}: use mix, left, right or a number from 0`);
  }
  return index;
}

function mixed(channels) {
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
    throw new AudioError(`float samples reach ${peak}: divide them to [-1, 1], int16 by 32768`);
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
 * An audio file as mono samples at `sampleRate` Hz. WAV, AIFF, AU and W64 (PCM, float, mu-law, A-law) are read as in
 * Python; other formats by the browser's decoder.
 *
 * @param {Blob | ArrayBuffer | Uint8Array} source
 * @param {number} [sampleRate]
 * @param {"mix" | "left" | "right" | number} [channel] the mean of all, or one of them
 * @returns {Promise<Float32Array>}
 */
export async function readAudio(source, sampleRate = 16_000, channel = "mix") {
  const { channels, rate } = await readChannels(source);
  return checked(resample(checked(mono(channels, channel)), rate, sampleRate));
}

/** The channels of an audio file, as they are, and their rate. */
export async function readChannels(source) {
  const bytes = new Uint8Array(source instanceof Blob ? await source.arrayBuffer() : source);
  if (!bytes.length) throw new AudioError("the file is empty (0 bytes): copy it again or remove it");
  if (APPLE_DOUBLE.every((byte, i) => bytes[i] === byte)) {
    throw new AudioError("notes of macOS on another file (AppleDouble), no audio: leave it out");
  }
  const found = layout(bytes);
  const sound = found?.coding ? { channels: samplesOf(bytes, found), rate: found.rate } : await decoded(bytes);
  if (sound.rate < 1000 || sound.rate > 768_000) {
    throw new AudioError(`the sample rate is ${sound.rate} Hz, which holds no speech: write the file again`);
  }
  if (!sound.channels[0].length) {
    throw new AudioError("the file holds no samples, the audio is empty: record it again or remove it");
  }
  const bad = sound.channels.map((samples) => samples.findIndex((value) => !Number.isFinite(value)));
  const first = Math.min(...bad.filter((at) => at >= 0));
  if (first < Infinity) {
    const seconds = (first / sound.rate).toFixed(3);
    throw new AudioError(`NaN or infinite value at frame ${first} (${seconds} s): write it again`);
  }
  return sound;
}

function samplesOf(bytes, { coding, channels: count, start, length }) {
  if (count < 1 || count > MAX_CHANNELS) {
    throw new AudioError(`the file declares ${count} channels: 1 to ${MAX_CHANNELS} can be used`);
  }
  const width = /\d$/.test(coding) ? Number(coding.at(-1)) : 1;
  const size = Math.floor(length / (width * count));
  return Array.from({ length: count }, (_, channel) => {
    const samples = new Float32Array(size);
    decode(bytes, coding, start + channel * width, width * count, samples);
    return samples;
  });
}

/** Raw samples of one of `ENCODINGS`, channels interleaved: an array of channels. */
export function pcm(bytes, encoding, count = 1) {
  const coding = ENCODINGS[encoding];
  if (!coding) throw new AudioError(`${encoding}: ${Object.keys(ENCODINGS).join(", ")} can be used`);
  return samplesOf(bytes, { coding, channels: count, start: 0, length: bytes.length });
}

/** Every `step`th sample of a coding from byte `at` on, into an array. */
function decode(bytes, coding, at, step, out) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const little = coding[0] === "<";
  const read = {
    mulaw: (i) => MULAW[bytes[i]],
    alaw: (i) => ALAW[bytes[i]],
    u1: (i) => bytes[i] / 128 - 1, // 8 bits of WAV are unsigned
    i1: (i) => view.getInt8(i) / 128,
    i2: (i) => view.getInt16(i, little) / 2 ** 15,
    i3: (i) => (view.getInt8(little ? i + 2 : i) * 65536 + view.getUint16(little ? i : i + 1, little)) / 2 ** 23,
    i4: (i) => view.getInt32(i, little) / 2 ** 31,
    f4: (i) => view.getFloat32(i, little),
    f8: (i) => view.getFloat64(i, little),
  }[coding.replace(/[<>]/, "")];
  for (let i = 0; i < out.length; i++) out[i] = read(at + i * step);
}

const law = (value) => Float32Array.from({ length: 256 }, (_, code) => value(code) / 32768);
const MULAW = law((code) => {
  const inverted = ~code & 255;
  const size = ((((inverted & 15) << 3) + 132) << ((inverted >> 4) & 7)) - 132;
  return inverted & 128 ? -size : size;
});
const ALAW = law((code) => {
  const even = code ^ 0x55;
  const [exponent, mantissa] = [(even >> 4) & 7, (even & 15) << 4];
  const size = exponent ? (mantissa + 264) << (exponent - 1) : mantissa + 8;
  return even & 128 ? size : -size;
});

async function decoded(bytes) {
  if (!globalThis.OfflineAudioContext) throw new AudioError("not a file that can be read here (WAV, AIFF, AU, W64): convert it to WAV");
  try {
    // A copy: the decoder takes its input away.
    const sound = await new OfflineAudioContext(1, 1, DECODED).decodeAudioData(bytes.slice().buffer);
    const channels = Array.from({ length: sound.numberOfChannels }, (_, i) => sound.getChannelData(i));
    return { channels, rate: DECODED };
  } catch (error) {
    throw new AudioError(`not an audio file that can be read (${error.message})`);
  }
}
