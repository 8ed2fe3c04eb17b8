"""One trace for each architecture: weights are filled in, and nothing else is taken for the same."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from mifuse_export import tracing  # noqa: E402
from mifuse_export.onnx import frozen, write_onnx  # noqa: E402


class Small(nn.Module):
    def __init__(self, power: int = 2, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.power = power
        self.conv, self.norm, self.head = nn.Conv1d(1, 3, 9, stride=4), nn.BatchNorm1d(3), nn.Linear(3, 2)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)
        nn.init.normal_(self.norm.running_mean)

    def forward(self, samples: Tensor) -> Tensor:
        x = self.norm(self.conv(samples[:, None])) ** self.power
        return torch.softmax(self.head(x.mean(dim=2)), dim=1)


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Models that were traced; nothing was before."""
    found: list[nn.Module] = []
    export = torch.onnx.export
    monkeypatch.setattr(
        torch.onnx, "export", lambda model, *a, **b: found.append(model) or export(model, *a, **b)
    )
    monkeypatch.setattr(tracing, "_graphs", type(tracing._graphs)())
    return found


def written(model: nn.Module, folder: Path) -> bytes:
    write_onnx(frozen(model), folder / "model.onnx", labels="ab", sample_rate=1000)
    return (folder / "model.onnx").read_bytes()


def test_other_weights_need_no_other_trace_and_give_the_same_bytes(
    tmp_path: Path, traces: list[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = written(Small(), tmp_path), written(Small(seed=1), tmp_path)
    assert len(traces) == 1
    assert first != second
    (graph,) = tracing._graphs.values()
    assert graph.graph.initializers["conv.weight"].const_value is None, "it holds no weights"
    monkeypatch.setattr(tracing, "KEPT", 2)
    tracing._graphs.clear()
    tracing._graphs.update(one=graph, other=graph)
    assert written(Small(seed=1), tmp_path) == second
    assert written(Small(), tmp_path) == first
    assert len(traces) == 2
    assert next(iter(tracing._graphs)) == "other", "the oldest goes"


def with_tensor(model: Small) -> None:
    model.power = torch.tensor(2.0)  # type: ignore[assignment]


def with_hook(model: Small) -> None:
    model.conv.register_forward_hook(functools.partial(print, sep=""))


@pytest.mark.parametrize("change", [with_tensor, with_hook])
def test_what_cannot_be_compared_is_traced_anew(change: Callable[[Small], None]) -> None:
    model = Small()
    assert tracing.architecture(model) is not None
    change(model)
    assert tracing.architecture(model) is None


def with_method(model: Small, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Small, "forward", lambda self, samples: self.head(samples[:, :3]))


def with_stride(model: Small, patch: pytest.MonkeyPatch) -> None:
    model.conv.stride = (2,)


def with_float(model: Small, patch: pytest.MonkeyPatch) -> None:
    model.power = 2.0  # type: ignore[assignment]


def with_one_tensor(model: Small, patch: pytest.MonkeyPatch) -> None:
    model.norm.bias = model.norm.weight


def in_half(model: Small, patch: pytest.MonkeyPatch) -> None:
    model.half()


@pytest.mark.parametrize("change", [with_method, with_stride, with_float, with_one_tensor, in_half])
def test_what_a_trace_may_depend_on(
    change: Callable[[Small, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Small()
    before = tracing.architecture(model)
    assert before == tracing.architecture(copy.deepcopy(model)) == tracing.architecture(Small(seed=3))
    change(model, monkeypatch)
    assert tracing.architecture(model) not in (before, None)
