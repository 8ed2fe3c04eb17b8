/** The microphone, as chunks to be fed to a stream. Nothing is recorded. */
import { AudioError } from "./errors.js";

const WAITING = 100; // chunks of 0.1 s that may wait for a slow machine; later ones are dropped

/**
 * Ask for the microphone and open it. Chunks are arrays of its channels, as `Stream.feed` takes them.
 *
 *     const microphone = await openMicrophone();
 *     const stream = recognizer.stream({ sampleRate: microphone.sampleRate });
 *     for await (const chunk of microphone) show(await stream.feed(chunk));
 *
 * @param {number} [channels] that are wanted; the browser gives fewer where the device has fewer
 * @returns {Promise<{sampleRate: number, channels: number, dropped: number, close: () => Promise<void>} &
 *   AsyncIterable<Float32Array[]>>}
 *   `close()` ends the loop and turns the microphone off; `dropped` counts chunks that came faster than they were taken
 */
export async function openMicrophone(channels = 1) {
  if (!globalThis.navigator?.mediaDevices) {
    throw new AudioError("there is no microphone for this page: serve it over https, or from localhost");
  }
  // The model was trained on voices as they are.
  const asTheyAre = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const audio = { ...asTheyAre, channelCount: { ideal: channels } };
  let media;
  try {
    media = await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    throw new AudioError(`the microphone cannot be used (${error.message}): allow it for this page`);
  }
  const context = new AudioContext();
  try {
    await context.audioWorklet.addModule(new URL("./microphone-worklet.js", import.meta.url));
    return listening(media, context, channels);
  } catch (error) {
    await off(media, context);
    throw error;
  }
}

function listening(media, context, wanted) {
  const chunks = [];
  let wake = () => {};
  let closed = false;
  const worklet = new AudioWorkletNode(context, "mifuse-microphone", { numberOfOutputs: 0 });
  const microphone = {
    sampleRate: context.sampleRate,
    channels: Math.min(wanted, media.getAudioTracks()[0].getSettings().channelCount ?? 1),
    dropped: 0,
    async close() {
      if (closed) return;
      closed = true;
      wake();
      await off(media, context);
    },
    async *[Symbol.asyncIterator]() {
      try {
        while (!closed) {
          if (chunks.length) yield chunks.shift();
          // A slow machine always has a chunk waiting: without a pause its page would freeze.
          if (chunks.length) await new Promise((resolve) => setTimeout(resolve));
          else if (!closed) await new Promise((resolve) => (wake = resolve));
        }
      } finally {
        await microphone.close(); // a loop that is left turns the microphone off
      }
    },
  };
  worklet.port.onmessage = ({ data }) => {
    if (chunks.length < WAITING) chunks.push(data);
    else microphone.dropped++;
    wake();
  };
  for (const track of media.getTracks()) track.onended = () => microphone.close(); // unplugged
  context.createMediaStreamSource(media).connect(worklet);
  return microphone;
}

function off(media, context) {
  for (const track of media.getTracks()) track.stop();
  return context.close();
}
