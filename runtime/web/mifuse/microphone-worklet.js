/** Runs beside the audio: hands on the microphone's channels in chunks of 0.1 s. */
class Microphone extends AudioWorkletProcessor {
  #chunk = []; // an array for each channel
  #filled = 0;

  process([channels]) {
    const length = channels[0]?.length ?? 0; // no channels: the device has gone
    if (length && channels.length !== this.#chunk.length) this.#begin(channels.length);
    for (let i = 0; i < length; i++) {
      for (let channel = 0; channel < channels.length; channel++) this.#chunk[channel][this.#filled] = channels[channel][i];
      if (++this.#filled === this.#chunk[0].length) {
        this.port.postMessage(this.#chunk);
        this.#filled = 0;
      }
    }
    return true;
  }

  #begin(count) {
    this.#chunk = Array.from({ length: count }, () => new Float32Array(Math.round(0.1 * sampleRate)));
    this.#filled = 0;
  }
}

registerProcessor("mifuse-microphone", Microphone);
