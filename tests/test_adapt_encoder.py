"""`mifuse adapt --encoder`: an encoder's states beside the statistics. It is tiny and random here."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mifuse.adaptation import adapt
from mifuse.clips.shards import Joined
from mifuse.errors import TrainingError
from mifuse.models.hub import Embeddings, HubClassifier
from mifuse.voices.states import MOST, StatisticsAndStates, principal_components
from tests.test_adapt import CONFIG, World
from tests.test_hub import save_encoder

pytestmark = pytest.mark.learning


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("encoder"), "WavLM")


def states(clips, layers=7, width=120):
    """States of which the middle layer follows three hidden values, all others are noise."""
    random = np.random.default_rng(0)
    hidden = random.standard_normal((clips, 3))
    found = random.standard_normal((clips, layers, 2, width))
    found[:, 4, 0] = hidden @ random.standard_normal((3, width)) + 0.1 * found[:, 4, 0]
    found[:, 4, 1] = found[:, 4, 0]
    half = clips // 2
    return hidden, Embeddings(Joined([found[:half].astype(np.float16), found[half:].astype(np.float16)]))


def test_components_of_a_middle_layer_hold_what_varies_there():
    hidden, kept = states(400)
    found = principal_components(kept)
    assert found.shape == (400, MOST)
    assert np.allclose(np.corrcoef(found.T)[np.triu_indices(MOST, 1)], 0, atol=1e-2)
    explained = np.linalg.lstsq(found[:, :3], hidden - hidden.mean(0), rcond=None)[0]
    residual = hidden - hidden.mean(0) - found[:, :3] @ explained
    assert (residual.var(0) < 0.05 * hidden.var(0)).all()


@pytest.mark.parametrize(("clips", "count"), [(2, 1), (60, 30), (400, MOST)])
def test_few_clips_have_few_components(clips, count):
    statistics = Joined([np.ones((clips, 5))])
    assert StatisticsAndStates(statistics, states(clips)[1]).in_memory().shape == (clips, 5 + count)


def test_an_encoder_changes_the_labels_and_is_kept_in_the_record(world, encoder, tmp_path):
    plain, other = tmp_path / "plain", tmp_path / "other"
    assert world.run(plain).exit_code == 0
    result = world.run(other, "--encoder", f"hf:{encoder}")
    assert result.exit_code == 0, result.output
    assert json.loads((other / "run.json").read_text())["encoder"] == str(encoder)
    assert (other / "predictions.csv").read_text() != (plain / "predictions.csv").read_text()


def test_another_encoder_is_another_run(world, encoder, tmp_path):
    hub = HubClassifier(str(encoder), dropout=0.0)
    config = replace(CONFIG, verdict=False)
    given = (world.clips, world.lalm, world.classifier, world.cache)
    adapt(*given, config=config, encoder=hub, state=tmp_path)
    with pytest.raises(TrainingError, match="encoder"):
        adapt(*given, config=config, state=tmp_path)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--encoder", "whisper"], 2, "write hf:whisper"),
        (["--encoder", "hf:{folder}/none"], 1, "none"),
        (
            ["--encoder", "hf:{encoder}", "--recipe", "paper", "--set", "refine.rounds=0"],
            1,
            "refine.rounds = 0",
        ),
    ],
)
def test_bad_use(world, encoder, tmp_path, options, code, message):
    given = [option.format(folder=tmp_path, encoder=encoder) for option in options]
    result = world.run(tmp_path / "s", *given)
    assert result.exit_code == code and message in result.stderr
    assert not (tmp_path / "s").exists()
