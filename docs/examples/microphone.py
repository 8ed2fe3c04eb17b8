import queue

from mifuse_runtime import Recognizer


def changes(stream, chunks):
    state = None
    for chunk in chunks:
        for prediction in stream.feed(chunk):
            if prediction.state != state:
                state = prediction.state
                yield prediction.end, state


if __name__ == "__main__":
    import sounddevice

    waiting = queue.Queue()
    recognizer = Recognizer.load("bundle/")
    with sounddevice.InputStream(channels=1, callback=lambda block, *_: waiting.put(block.copy())) as device:
        for seconds, state in changes(recognizer.stream(device.samplerate), iter(waiting.get, None)):
            print(f"{seconds:6.1f} s  {state}")
