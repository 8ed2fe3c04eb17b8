/** Runs beside the audio: hands on the microphone's samples in chunks of 0.1 s, channels averaged. */
class Microphone extends AudioWorkletProcessor {
  #chunk = new Float32Array(Math.round(0.1 * sampleRate));
  #filled = 0;

  process([channels]) {
    const length = channels[0]?.length ?? 0; // no channels: the device has gone
    for (let i = 0; i < length; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      this.#chunk[this.#filled++] = sum / channels.length;
      if (this.#filled === this.#chunk.length) {
        this.port.postMessage(this.#chunk);
        this.#filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("mifuse-microphone", Microphone);
