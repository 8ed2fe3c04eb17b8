"""Coverage-guided fuzzing of files from anywhere that the runtime reads: audio, bundle.json, model files.

`benchmarks.fuzz` compares with other readers, and needs no compiler; this one looks for crashes.

    pip install atheris    # Linux
    python -m benchmarks.guided feed|bundle|graph [--seconds 60] [--crashes FOLDER]

Stops at the first crash, hang (10 s), NaN or 1 GB used, with an exit code above 0 and the input in FOLDER.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["mifuse_runtime"]):
    from mifuse_runtime import AudioError, BundleError, Recognizer
    from mifuse_runtime import bundle as bundles
    from mifuse_runtime import graph as graphs

RATES = (1000, 8000, 16_000, 44_100, 48_000)
DTYPES = ("<i2", "<f4", "<f8", "<f2", ">i2", "<i4", "u1", "<c8")


def feed(recognizer: Recognizer, data: bytes) -> None:
    """A stream of chunks of any kind: taken or refused, and every answer is a distribution."""
    given = atheris.FuzzedDataProvider(data)
    rate, hop = given.PickValueInList(list(RATES)), given.PickValueInList([0.01, 0.05, 0.3])
    with recognizer.stream(rate, window=0.1, hop=hop) as stream:
        found = []
        for _ in range(given.ConsumeIntInRange(1, 6)):
            dtype = np.dtype(given.PickValueInList(list(DTYPES)))
            channels, repeat = given.ConsumeIntInRange(0, 3), given.ConsumeIntInRange(1, 200)
            raw = given.ConsumeBytes(given.ConsumeIntInRange(0, 400))
            samples = np.tile(
                np.frombuffer(raw[: len(raw) // dtype.itemsize * dtype.itemsize], dtype), repeat
            )
            if channels:
                samples = samples[: samples.size // channels * channels].reshape(-1, channels)
            try:
                found += stream.feed(samples)
            except AudioError:
                continue
        for prediction in found + stream.close():
            values = [*prediction.scores.values(), prediction.confidence, prediction.speech]
            assert np.isfinite(values).all(), values
            assert abs(sum(prediction.scores.values()) - 1) < 1e-6


def bundle(text: str, data: bytes) -> None:
    """A bundle.json whose middle is replaced: read or refused."""
    given = atheris.FuzzedDataProvider(data)
    start = given.ConsumeIntInRange(0, len(text))
    end = min(len(text), start + given.ConsumeIntInRange(0, 40))
    try:
        read = bundles.Bundle.from_json(text[:start] + given.ConsumeUnicodeNoSurrogates(40) + text[end:])
    except BundleError as error:
        assert "\n" not in str(error)
    else:
        assert bundles.Bundle.from_json(read.to_json()) == read


def graph(model: bytes, data: bytes) -> None:
    """Model files that are changed or made up: looked through without harm."""
    given = atheris.FuzzedDataProvider(data)
    start = given.ConsumeIntInRange(0, len(model))
    made_up = given.ConsumeBytes(given.ConsumeIntInRange(0, 200))
    for content in (made_up, model[:start] + made_up + model[start + len(made_up) :]):
        graphs.onnx_problem(content)
        graphs.openvino_problem(content, b"")


def main() -> None:
    """Fuzz one of the three."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("feed", "bundle", "graph"))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--crashes", type=Path, default=Path.cwd())
    options = parser.parse_args()
    from tests.bundles import make_bundle

    with tempfile.TemporaryDirectory() as folder:
        made = make_bundle(Path(folder) / "bundle", split=True)
        recognizer = Recognizer.load(made)
        text, model = (made / "bundle.json").read_text(), (made / "body.onnx").read_bytes()
    targets = {
        "feed": lambda data: feed(recognizer, data),
        "bundle": lambda data: bundle(text, data),
        "graph": lambda data: graph(model, data),
    }
    limits = [f"-max_total_time={options.seconds}", "-timeout=10", "-rss_limit_mb=1000", "-max_len=2000"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={options.crashes}/"], targets[options.what])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
