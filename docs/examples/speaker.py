import sys
from pathlib import Path

from mifuse_runtime import Recognizer, read_audio

recognizer = Recognizer.load("bundle/")
anna = recognizer.speaker()
if Path("anna.json").exists():
    anna.load("anna.json")
for path in sys.argv[1:]:
    samples = read_audio(path, recognizer.sample_rate)
    prediction = recognizer.predict(samples, speaker=anna)
    print(path, prediction.label, f"{prediction.scores[prediction.label]:.2f}, {anna.clips} heard")
anna.save("anna.json")
