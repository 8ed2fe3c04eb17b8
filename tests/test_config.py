import json
from dataclasses import asdict, dataclass, field

import pytest

from mifuse.config import from_dict, override, require
from mifuse.errors import MifuseError
from mifuse.fusion.recipes import RECIPES, AdaptConfig
from mifuse.models.classifier import TrainConfig


@dataclass(frozen=True)
class Inner:
    share: float = 0.5
    ends: tuple[float, float] = (0.0, 1.0)
    on: bool = True

    def __post_init__(self):
        require(self, share=(0, 1))


@dataclass(frozen=True)
class Outer:
    steps: int = 3
    name: str = "a"
    inner: Inner = field(default_factory=Inner)


def test_values_are_json_or_text():
    changed = override(
        Outer(), ["steps=7", "name=b", "inner.share=1", "inner.ends=[2, 3.5]", "inner.on=false"]
    )
    assert changed == Outer(7, "b", Inner(1.0, (2.0, 3.5), False))
    assert isinstance(changed.inner.share, float)
    assert override(Outer(), []) == Outer()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("step=1", "there is no setting 'step': did you mean steps?"),
        ("inner.shore=1", r"there is no setting 'inner.shore': did you mean inner.share"),
        ("qqq=1", "did you mean inner, name, steps"),
        ("=1", "there is no setting ''"),
        ("steps", "'steps': settings are given as NAME=VALUE"),
        ("steps=1.5", "steps = 1.5: expected int, as in 3"),
        ("steps=true", "steps = True: expected int"),
        ("steps=many", "steps = 'many': expected int"),
        ("inner=1", "inner is a group of settings"),
        ("steps.x=1", "steps = .*: expected int"),
        ("inner.on=True", "inner.on = 'True': expected bool, as in true"),
        ("inner.on=1", "expected bool"),
        ("inner.share=[1]", "expected float"),
        ("inner.ends=[1]", "expected tuple, as in"),
        ('inner.ends=["a", 1]', "inner.ends = 'a': expected float"),
        ("inner.share=2", "share = 2.0: it must be 0 to 1"),
        ("inner.share=NaN", "share = nan"),
    ],
)
def test_refused(assignment, message):
    with pytest.raises(MifuseError, match=message) as caught:
        override(Outer(), [assignment])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [*RECIPES.values(), TrainConfig()])
def test_every_config_survives_its_json(config):
    assert from_dict(type(config)(), json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize(
    "assignment",
    [
        "fit.steps=0",
        "fit.steps_per_epoch=0",
        "fit.batch_size=1",
        "fit.lr=-1",
        "fit.momentum=1.1",
        "fit.label_smoothing=2",
        "classifier_draws=0",
        "refresh=-1",
        "refine.folds=1",
        "refine.prior=1.5",
    ],
)
def test_numbers_out_of_range(assignment):
    name = assignment.partition("=")[0].rpartition(".")[2]
    with pytest.raises(MifuseError, match=rf"{name} = .*: it must be "):
        override(AdaptConfig(), [assignment])
