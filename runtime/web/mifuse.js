/**
 * On-device speech emotion recognition: a bundle in, emotions out. For browsers, Electron and Node.
 *
 *     const recognizer = await Recognizer.load("bundle/");
 *     const prediction = await recognizer.predict(await readAudio(file, recognizer.sampleRate));
 *
 * Names and meaning are those of the Python package `mifuse_runtime`; the thresholds come from the same bundle.
 */
export { readAudio } from "./mifuse/audio.js";
export { NO_SPEECH, NOT_SURE } from "./mifuse/decision.js";
export { AudioError, BundleError, MifuseError } from "./mifuse/errors.js";
export { openMicrophone } from "./mifuse/microphone.js";
export { Recognizer } from "./mifuse/recognizer.js";
