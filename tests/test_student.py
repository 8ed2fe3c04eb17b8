import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mifuse.errors import MifuseError
from mifuse.models.classifier import load_model
from mifuse.models.frontend import N_MELS
from mifuse.models.student import SIZES, Student, size_of, width_of

pytestmark = pytest.mark.learning


@pytest.mark.parametrize(("size", "count"), [("xs", 30_000), ("s", 115_000), ("m", 1_000_000)])
def test_size_of_each_size(size, count):
    parameters = sum(p.numel() for p in Student(size=size).parameters())
    assert 0.9 * count <= parameters <= 1.1 * count
    assert set(SIZES) == {"xs", "s", "m"}


@pytest.fixture
def student():
    torch.manual_seed(0)
    return Student(size="xs", labels=("calm", "loud", "other")).eval()


def test_probabilities(student):
    probs = student(torch.randn(3, 5_000) * 0.1)
    assert probs.shape == (3, 3)
    assert probs.dtype == torch.float32
    torch.testing.assert_close(probs.sum(1), torch.ones(3))
    assert torch.equal(student(torch.zeros(1, 1)).isfinite(), torch.ones(1, 3, dtype=torch.bool))


class Gated(Student):
    """A student of somebody's own."""

    def __init__(self):
        super().__init__(size="xs")
        self.gate = torch.nn.Parameter(torch.linspace(-1, 1, self.norm.num_features - self.norm.spectrum))

    def pooled(self, logmel, mask):
        return Student.pooled(self, logmel, mask) * torch.sigmoid(self.gate)


def test_a_student_of_ones_own_is_exported_as_it_is():
    torch.manual_seed(0)
    student, samples = Gated().eval(), torch.randn(2, 9_000) * 0.1
    torch.testing.assert_close(student.standalone()(samples), student(samples), rtol=0, atol=1e-5)
    student.gate.data.fill_(-9.0)
    assert not torch.allclose(student.standalone()(samples), Student.forward(Student(size="xs"), samples))


def test_padding_hardly_matters(student):
    samples = torch.randn(1, 12_000) * 0.1
    padded = torch.nn.functional.pad(samples, (0, 4_000))
    # Convolutions see the masked zeros beyond the last frame, no more.
    torch.testing.assert_close(student(padded), student(samples), rtol=0, atol=0.02)


def test_features_and_logits_are_the_forward_pass(student):
    samples = torch.randn(2, 9_000) * 0.1
    logmel, mask, spectrum = student.features(samples)
    assert logmel.shape[1] == N_MELS and mask.shape == (2, 1, logmel.shape[2])
    assert spectrum.shape == (2, 2 * N_MELS)
    assert torch.equal(student.logits(logmel, mask, spectrum).softmax(-1), student(samples))


def test_gradients_reach_every_parameter(student):
    student.train()(torch.randn(4, 8_000))[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())


def test_save_and_load(student, tmp_path, capsys):
    student.save_pretrained(tmp_path / "a")
    loaded = load_model(tmp_path / "a")
    assert (loaded.labels, loaded.size, loaded.training) == (student.labels, "xs", False)
    samples = torch.randn(2, 7_000)
    assert torch.equal(loaded(samples), student(samples))
    loaded.save_pretrained(tmp_path / "b")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert capsys.readouterr().out == ""  # --json owns it


def test_weights_of_other_strides_are_refused(student, tmp_path):
    student.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for strides in ({"strides": 2 * weights["strides"]}, {}):  # earlier versions named none
        rest = {name: value for name, value in weights.items() if name != "strides"}
        save_file(rest | strides, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(MifuseError, match=r"not a student of ours .*strides of an earlier version"):
            load_model(tmp_path)


def test_widths_between_the_sizes(tmp_path):
    student = Student(size="w6")
    assert [len(block.norm.weight) for block in student.blocks] == [18, 36, 48, 48, 48]
    student.save_pretrained(tmp_path)
    assert load_model(tmp_path).size == "w6"
    assert {size_of(width): width for width in SIZES.values()} == SIZES
    assert all(width_of(size_of(width)) == width for width in range(1, 100))


def test_checkpoint_holds_data_only(student, tmp_path):
    student.save_pretrained(tmp_path)
    assert {p.suffix for p in tmp_path.iterdir()} <= {".json", ".safetensors", ".md"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["labels"] == ["calm", "loud", "other"] and config["size"] == "xs"
    assert all(isinstance(v, str | int | float | bool | list) for v in config.values())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": "xl"}, "unknown student size 'xl': use one of xs, s, m, or a width from w1 to w99"),
        ({"size": "w0"}, "unknown student size 'w0'"),
        ({"size": "w06"}, "unknown student size 'w06'"),
        ({"size": "w100"}, "unknown student size 'w100'"),
        ({"size": "w6.5"}, r"unknown student size 'w6\.5'"),
        ({"size": 6}, "unknown student size 6"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"dropout": -0.1}, "dropout = -0.1"),
    ],
)
def test_bad_settings(wrong, message):
    with pytest.raises(MifuseError, match=message):
        Student(**wrong)
