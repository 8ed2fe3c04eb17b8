import { useCallback, useEffect, useRef, useState } from "react";
import { openMicrophone, Recognizer } from "mifuse-runtime-web";

/** How the person at the microphone sounds: `const { state, listening, error, start, stop } = useEmotion("/bundle/")`. */
export function useEmotion(bundle, { open = openMicrophone, ...options } = {}) {
  const [shown, show] = useState({ state: null, listening: false, error: null });
  const microphone = useRef(null); // a promise of it, from the click on

  const stop = useCallback(async () => {
    const opened = microphone.current;
    microphone.current = null;
    await opened?.then((device) => device.close(), () => {});
  }, []);

  const start = useCallback(async () => {
    if (microphone.current) return;
    show({ state: null, listening: true, error: null });
    let error = null;
    try {
      microphone.current = open();
      const [device, recognizer] = await Promise.all([microphone.current, Recognizer.load(bundle, options)]);
      const stream = recognizer.stream({ sampleRate: device.sampleRate });
      for await (const chunk of device) {
        for (const { state } of await stream.feed(chunk)) show((before) => ({ ...before, state }));
      }
    } catch (failure) {
      error = failure.message;
    }
    await stop();
    show((before) => ({ ...before, listening: false, error }));
  }, [bundle, stop]);

  useEffect(() => () => void stop(), [stop]); // off when the component is gone
  return { ...shown, start, stop };
}
