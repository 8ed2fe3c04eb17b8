"""What an exported graph must show before it is handed out: parity with PyTorch, and no loss by int8."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mifuse_export.errors import ExportError
from mifuse_runtime.dimensions import concordance

Floats = NDArray[np.float32]
Predict = Callable[[Floats], Floats]  # (batch, n) -> (batch, C), V dimensions behind them if there are any

PARITY = 1e-4  # largest |Δp| between PyTorch and a float graph
PARITIES = {"fp32": PARITY, "fp16": 3e-3}  # eleven bits a weight; students measured 1.1e-3
# What int8 may do without a loss of UA to show for it; a `--max-drop` above them widens both.
FLIPS = 5.0  # % of clips decided differently, however near the ties
CCC_DROP = 0.01  # of a dimension: against the truth, or from a CCC of 1 with float where no truth is known
ALIKE = 5e-3  # of its range: where int8 is so near to fp32, a dimension that hardly moves needs no CCC
DRIFT = 2.0  # mean |Δp| in points, where no labels say that it does no harm; students measured 0.2 to 0.4


def torch_predict(model: nn.Module) -> Predict:
    """The model as a function of NumPy samples."""

    def predict(samples: Floats) -> Floats:
        try:
            with torch.no_grad():
                found = model(torch.from_numpy(samples))
                parts = found if isinstance(found, tuple) else (found,)
                answers: Floats = torch.cat(parts, dim=-1).numpy()
        except (RuntimeError, ValueError) as error:
            line = " ".join(str(error).split())[:200]
            raise ExportError(
                f"the model fails on samples {samples.shape} ({line}): it must take any length"
            ) from error
        return answers

    return predict


def remembered(predict: Predict) -> Predict:
    """The same, answering each batch once: an export asks for the same minutes of audio for every engine."""
    known: dict[tuple[tuple[int, ...], bytes], Floats] = {}

    def answer(samples: Floats) -> Floats:
        key = samples.shape, sha256(samples.tobytes()).digest()
        if key not in known:
            known[key] = predict(samples)
        return known[key]

    return answer


def probabilities(predict: Predict, clips: Sequence[Floats]) -> Floats:
    """Clip by clip, as the device does it: (N, C), or (N, C + V)."""
    return np.concatenate([predict(clip[None]) for clip in clips])


def edge_cases(sample_rate: int) -> dict[str, Floats]:
    """Signals (n,) that a device may receive and a corpus does not hold."""
    noise = np.random.default_rng(0).standard_normal(60 * sample_rate).astype(np.float32) * np.float32(0.1)
    clicks = np.zeros(sample_rate, np.float32)
    clicks[sample_rate // 2 :: sample_rate // 8] = 1.0
    return {
        "silence": np.zeros(sample_rate, np.float32),
        "one sample": np.full(1, 0.5, np.float32),
        "0.1 s": noise[: sample_rate // 10],
        "clicks": clicks,
        "full scale": np.sign(noise[:sample_rate]).astype(np.float32),
        "10 s": noise[: 10 * sample_rate],
        "60 s": noise,
    }


def crowd(sample_rate: int, count: int = 32) -> Floats:
    """`count` signals of one second, from loud to near silence, as one batch."""
    noise = np.random.default_rng(1).standard_normal((count, sample_rate))
    swell = np.sin(np.linspace(0, 20, sample_rate)) ** 2
    levels = np.geomspace(0.3, 1e-5, count)[:, None]
    signals: Floats = (noise * swell * levels).astype(np.float32)
    return signals


def parity_batches(clips: Sequence[Floats], sample_rate: int, count: int = 12) -> Iterator[Floats]:
    """The edge cases and `count` clips of all lengths, alone, then three by three padded with zeros."""
    ordered = sorted(clips, key=len)
    chosen = (
        [ordered[round(i)] for i in np.linspace(0, len(ordered) - 1, min(count, len(ordered)))]
        if clips
        else []
    )
    cases = list(edge_cases(sample_rate).values())
    for clip in cases + chosen:
        yield clip[None]
    yield crowd(sample_rate)
    longest_first = cases[::-1] + chosen
    for i in range(0, len(longest_first) - 2, 3):
        three = longest_first[i : i + 3]
        batch = np.zeros((3, max(map(len, three))), np.float32)
        for row, clip in zip(batch, three, strict=True):
            row[: len(clip)] = clip
        yield batch


def check_parity(
    reference: Predict,
    exported: Predict,
    clips: Sequence[Floats],
    sample_rate: int,
    name: str,
    *,
    allowed: float = PARITY,
) -> float:
    """Largest |Δp| of `exported` against `reference` over `parity_batches`.

    Raises:
        ExportError: larger than `allowed`, or not finite.
    """
    worst = 0.0
    for batch in parity_batches(clips, sample_rate):
        expected, found = reference(batch), exported(batch)
        difference = float(np.abs(expected - found).max()) if expected.shape == found.shape else np.inf
        if not difference <= allowed:  # NaN fails too
            raise ExportError(
                f"{name} differs from PyTorch by {difference:.2g} on input {batch.shape}, "
                f"{allowed:g} is allowed: look for what a graph cannot do, such as random numbers"
            )
        worst = max(worst, difference)
    return worst


@dataclass(frozen=True)
class Quality:
    """int8 beside fp32 on the same clips. Accuracies are UA in %, None without labels.

    Of dimensions `ccc` is the mean against the truth, and `concordance` the lowest of int8 with fp32.
    """

    clips: int
    agreement: float  # % of clips with the same top emotion
    max_abs_dp: float
    mean_abs_dp: float
    expected_drop: float  # points of accuracy lost if the float probabilities are right
    fp32_ua: float | None = None
    ua: float | None = None
    drop_error: float | None = None  # standard error of the UA drop, from the clips that changed sides
    concordance: float | None = None  # CCC; None without dimensions
    fp32_ccc: float | None = None
    ccc: float | None = None
    ccc_drop: float | None = None  # of the dimension that loses most: of CCC, or from 1 of `concordance`

    def failure(self, max_drop: float) -> str | None:
        """Why this int8 model must not be handed out, or None.

        With labels, the UA drop must stay within `max_drop` points plus its standard error: on 168 clips
        one clip is 0.6 points, and a gate that fires by chance teaches people to switch it off.
        Without labels the float model is the judge, and |Δp| must be small. Both need 95 % agreement.
        Dimensions may lose .01 of CCC, of that with the truth or, where it is not known, of that with fp32.
        """
        if not self.max_abs_dp <= 1.0:
            return "its probabilities are not finite"
        if self.ccc_drop is not None and not self.ccc_drop <= max(CCC_DROP, max_drop / 100):
            what = "the CCC with fp32 is" if self.ccc is None else "the CCC falls by"
            value = self.concordance if self.ccc is None else self.ccc_drop
            return f"of a dimension {what} {value:.3f} on {self.clips} clips"
        return self._lost(max_drop)

    def _lost(self, max_drop: float) -> str | None:
        """What the emotions lose too much of."""
        if 100 - self.agreement > max(FLIPS, max_drop):
            return f"it decides {100 - self.agreement:.1f} % of {self.clips} clips differently than fp32"
        if self.ua is not None and self.fp32_ua is not None and self.drop_error is not None:
            drop = self.fp32_ua - self.ua
            if drop > max_drop + self.drop_error:
                return f"UA falls by {drop:.2f} points (± {self.drop_error:.2f}) on {self.clips} clips"
        elif self.expected_drop > max_drop:
            return f"accuracy is expected to fall by {self.expected_drop:.2f} points on {self.clips} clips"
        elif 100 * self.mean_abs_dp > max(DRIFT, max_drop):
            return f"its probabilities are off by {100 * self.mean_abs_dp:.1f} points on average"
        return None


def rounded(value: float | None) -> float | None:
    """Six digits: what reports keep of a measurement; None for infinity, which JSON does not know."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.6g}")


def compare(
    fp32: Floats,
    int8: Floats,
    labels: NDArray[np.int64] | None = None,
    values: NDArray[np.float64] | None = None,
    *,
    dimensions: int = 0,
) -> Quality:
    """Quality of int8 answers (N, C + V) against fp32 ones.

    Args:
        labels: true classes (N,) where they are known.
        values: true dimensions (N, V), likewise; NaN where a clip has none.
        dimensions: V.

    >>> fp32 = np.array([[0.9, 0.1], [0.4, 0.6]], np.float32)
    >>> compare(fp32, fp32[:, ::-1], np.array([0, 1])).ua
    0.0
    """
    beside = {}
    if dimensions:
        beside = _dimensions(fp32[:, -dimensions:], int8[:, -dimensions:], values)
        if fp32.shape[1] == dimensions:
            return _alone(fp32, int8, beside)
        fp32, int8 = fp32[:, :-dimensions], int8[:, :-dimensions]
    top, quantised = fp32.argmax(axis=1), int8.argmax(axis=1)
    rows = np.arange(len(fp32))
    difference = np.abs(fp32 - int8)
    result = beside | {
        "clips": len(fp32),
        "agreement": float(100 * np.mean(top == quantised)),
        "max_abs_dp": float(difference.max()),
        "mean_abs_dp": float(difference.mean()),
        "expected_drop": float(100 * np.mean(fp32[rows, top] - fp32[rows, quantised])),
    }
    if labels is not None:
        result |= _accuracies(top == labels, quantised == labels, labels)
    return Quality(**result)  # type: ignore[arg-type]


def _alone(fp32: Floats, int8: Floats, beside: dict[str, float]) -> Quality:
    """Quality of a model of dimensions (N, V) alone: there is no emotion to disagree about."""
    difference = np.abs(fp32 - int8)
    worst, mean = float(difference.max()), float(difference.mean())
    return Quality(len(fp32), 100.0, worst, mean, 0.0, **beside)


def _accuracies(
    before: NDArray[np.bool_], after: NDArray[np.bool_], labels: NDArray[np.int64]
) -> dict[str, float]:
    """UA of fp32 and of int8, from which clips (N,) each has right."""
    classes = np.unique(labels)
    recalls = np.array([[hits[labels == c].mean() for c in classes] for hits in (before, after)])
    counts = np.array([(labels == c).sum() for c in classes])
    changed = np.array([(before ^ after)[labels == c].sum() for c in classes])
    return {
        "fp32_ua": float(100 * recalls[0].mean()),
        "ua": float(100 * recalls[1].mean()),
        "drop_error": float(100 * np.sqrt((changed / counts**2).sum()) / len(classes)),
    }


def _dimensions(fp32: Floats, int8: Floats, truth: NDArray[np.float64] | None) -> dict[str, float]:
    """CCC of each column of fp32 and of int8, with the truth where two clips or more have it."""
    columns = range(fp32.shape[1])
    near = [float(np.sqrt(np.mean((fp32[:, v] - int8[:, v]) ** 2))) <= ALIKE for v in columns]
    # NaN, of constants, is no concordance either, unless they are alike.
    both = [concordance(fp32[:, v], int8[:, v]) for v in columns]
    agreed = [1.0 if near[v] else float(np.nan_to_num(both[v])) for v in columns]
    found = {"concordance": min(agreed), "ccc_drop": 1 - min(agreed)}
    known = np.zeros(fp32.shape, bool) if truth is None else np.isfinite(truth)
    judged = [v for v in columns if known[:, v].sum() > 1]
    if truth is None or not judged:
        return found
    each = np.nan_to_num(
        [[concordance(truth[known[:, v], v], a[known[:, v], v]) for v in judged] for a in (fp32, int8)]
    )
    means = {"fp32_ccc": float(each[0].mean()), "ccc": float(each[1].mean())}
    return found | means | {"ccc_drop": float((each[0] - each[1]).max())}
