"""What is kept on disk has the key of what computed it: other results without another version are found here.

After raising a version in mifuse/clips/keys.py: `python -m tests.test_keys` writes the samples anew.
"""

from __future__ import annotations

import json
import tempfile
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from mifuse.clips.audio import AudioCache
from mifuse.clips.keys import VERSIONS, key
from mifuse.clips.manifest import Clip
from mifuse.models.features import Features, features_key
from mifuse.models.hub import HubClassifier
from mifuse.voices import prosody, spectral
from mifuse.voices.embedding import embed
from mifuse.voices.statistics import statistics_key
from tests.test_hub import save_encoder

FILE = Path(__file__).with_name("fixed_results.json")
RATE = 22_050  # so that decoding resamples


def recording(folder: Path) -> Clip:
    """A second of a gliding voice in syllables, between silences, in stereo."""
    t = np.arange(RATE) / RATE
    phase = 2 * np.pi * np.cumsum(140 + 40 * t) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 12)) * np.sin(np.pi * 4 * t) ** 2
    sound = np.concatenate([np.zeros(RATE // 5), 0.2 * voice, np.zeros(RATE // 4)])
    with wave.open(str(folder / "a.wav"), "wb") as file:
        file.setparams((2, 2, RATE, 0, "NONE", ""))
        file.writeframes((np.stack([sound, 0.5 * sound], axis=1) * 32767).astype("<i2").tobytes())
    return Clip(path=folder / "a.wav", name="a.wav")


def results(folder: Path) -> dict[str, list[float]]:
    """Some values of each computation."""
    clip, cache = recording(folder), AudioCache(folder / "cache")
    samples, whole = cache.samples(clip), cache.samples(clip, trim=False)
    features = Features.of([clip], cache)
    hub = HubClassifier(str(save_encoder(folder / "encoder", "WavLM")), dropout=0.0)
    with torch.no_grad():
        for number, weights in enumerate(hub.model.parameters()):  # no random numbers of a torch version
            weights.copy_(0.3 * torch.sin(torch.arange(weights.numel()) + number).reshape(weights.shape))
    found = {
        "audio": whole[::1009],
        "trim": [len(whole), len(samples), samples[0], samples[-1]],
        "features": features.batch([0])[0].numpy()[::7].ravel()[::13],
        "prosody": prosody.measure(samples).values,
        "pitch": features.prosody()[0].numpy(),
        "spectral": spectral.describe(features)[0],
        "embedding": embed(samples)[::8],
        "encoder": hub.embeddings([clip], cache).rows[0:1].ravel()[:32],
    }
    return {name: [round(float(value), 5) for value in values] for name, values in found.items()}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    return results(tmp_path_factory.mktemp("keys"))


@pytest.mark.parametrize("name", VERSIONS)
def test_other_results_have_another_version(found: dict[str, list[float]], name: str) -> None:
    known = json.loads(FILE.read_text(encoding="utf-8"))[name]
    assert known["version"] == VERSIONS[name], "write the samples anew: python -m tests.test_keys"
    # Rounding of another CPU is far below; what is kept is float16.
    np.testing.assert_allclose(
        found[name],
        known["values"],
        rtol=3e-3,
        atol=3e-3,
        err_msg=f"{name} has changed: raise its version in mifuse/clips/keys.py, or old results stay in use",
    )


def test_a_version_or_a_constant_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {features_key(), features_key(trim=False), statistics_key()}
    for computation in ("audio", "trim", "features"):
        with monkeypatch.context() as patch:
            patch.setitem(VERSIONS, computation, 99)
            keys |= {features_key(), statistics_key()}
    for name in ("VOICED", "FRAME"):
        with monkeypatch.context() as patch:
            patch.setattr(prosody, name, 1)
            keys.add(statistics_key())
    assert len(keys) == 3 + 2 * 3 + 2
    assert statistics_key() in keys and features_key() in keys


def test_docs_are_no_part_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(["prosody"], [prosody])
    monkeypatch.setattr(prosody, "__doc__", "Other words.")
    assert key(["prosody"], [prosody]) == before


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        values = results(Path(folder))
    content = {name: {"version": VERSIONS[name], "values": values[name]} for name in VERSIONS}
    FILE.write_text(json.dumps(content) + "\n", encoding="utf-8")
