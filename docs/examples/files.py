import sys

from mifuse_runtime import Recognizer, read_audio

recognizer = Recognizer.load("bundle/")
for path in sys.argv[1:]:
    samples = read_audio(path, recognizer.sample_rate)
    prediction = recognizer.predict(samples)
    print(path, prediction.label, f"{prediction.scores[prediction.label]:.2f}")
