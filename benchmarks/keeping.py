"""What becomes of a stream's decisions when activations are kept from hop to hop instead of made anew.

    python -m benchmarks.keeping --corpora DIR [--transfers A>B,…] [--windows 3 10] [--seconds 240] [--newest]

The front end subtracts each mel bin's mean over the window and divides by its loudest frame before the first
convolution, so that what is kept carries the statistics of an earlier window. Streams are clips of the test
split, a speaker in one emotion for about 20 s, then another; UA counts the hops whose window is within one
such run. The students are those of `benchmarks.transfers`, in float.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.export import students
from mifuse.clips.audio import SAMPLE_RATE, AudioCache
from mifuse.clips.labels import Naming
from mifuse.errors import MifuseError
from mifuse.evaluation import labelled_clips
from mifuse.models.classifier import load_student
from mifuse.models.frontend import HOP
from mifuse.models.student import STRIDES, Student

STEP = SAMPLE_RATE // 4  # samples from window to window
STRIDE = math.prod(stride for _, stride in STRIDES)  # frames of an activation
CONTEXT = 8  # frames on each side that an activation depends on
RUN = 20.0  # seconds of one speaker in one emotion
BUDGETS = (0, 128, 192)  # frames a hop through the convolutions; 0: the new ones
ANEW, DEVICE = "anew", "anew, window from its own frame, as the device does"
SHIFTS = {"anew, window from 16 ms earlier": 1, "anew, window from 32 ms earlier": STRIDE}  # frames
STEADY, KEPT = "statistics of the stream, anew", "the same, kept, against it"
RATIO = 10**0.1  # by how much the loudest frame may change before everything is made anew, 1 dB

Runs = list[tuple[int, int, str]]  # first sample, the one behind the last, emotion


class Keeping(nn.Module):
    """In place of a student's blocks: activations of the last window where there are some.

    Args:
        budget: frames through the convolutions in a hop; what the new ones leave of it makes the oldest anew.
    """

    def __init__(self, blocks: nn.Module, budget: int = 0) -> None:
        super().__init__()
        self.blocks, self.budget, self.frames = blocks, budget, 0
        self.kept: Tensor | None = None
        self.start = self.final = self.turn = 0  # in activations since the stream began

    def forward(self, x: Tensor, first: int, fresh: bool = False) -> Tensor:
        """Activations (1, channels, bins, n) of features (1, 1, mels, frames) from frame `first` on."""
        start, frames = first // STRIDE, x.shape[3]
        count = -(-frames // STRIDE)
        ready = 0 if self.kept is None or fresh else min(max(0, self.final - start), count)
        again = max(0, (self.budget - (count - ready) * STRIDE - 3 * CONTEXT) // STRIDE)
        turn = self.turn - start if 0 <= self.turn - start < ready else 0
        pieces = [(turn, min(turn + again, ready)), (ready, count)] if again < ready else [(0, count)]
        found = torch.zeros(0)
        for begin, end in pieces:
            if begin == end:
                continue
            low, high = max(0, begin * STRIDE - CONTEXT), min(frames, end * STRIDE + CONTEXT)
            made = self.blocks(x[..., low:high])[..., begin - low // STRIDE :][..., : end - begin]
            if not found.numel():
                found = made.new_zeros(*made.shape[:3], count)
                if self.kept is not None and ready:
                    found[..., :ready] = self.kept[..., start - self.start :][..., :ready]
            found[..., begin:end] = made
            self.frames += high - low
        self.turn, self.kept, self.start = start + turn + again, found, start
        self.final = start + max(0, (frames - 1 - CONTEXT) // STRIDE)  # all that they depend on was there
        return found


def stream(target: Path, labels: Sequence[str], seconds: float, cache: AudioCache) -> tuple[np.ndarray, Runs]:
    """Samples (n,), and who speaks how in them."""
    rng = np.random.default_rng(0)
    speakers: dict[tuple[str, str], list[np.ndarray]] = {}
    for clip in labelled_clips(target, Naming(tuple(labels)), "test").clips:
        speakers.setdefault((str(clip.speaker), str(clip.label)), []).append(cache.samples(clip))
    pieces, runs, at = [], [], 0
    for number in rng.permutation(len(speakers)):
        (_, label), clips = list(speakers.items())[number]
        begin = at
        for clip in clips:
            pieces += [clip, np.zeros(int(rng.uniform(0.2, 0.8) * SAMPLE_RATE), np.float32)]
            at += sum(piece.size for piece in pieces[-2:])
            if at - begin > RUN * SAMPLE_RATE:
                break
        runs.append((begin, at, label))
        if at > seconds * SAMPLE_RATE:
            break
    samples = np.concatenate(pieces)
    return samples + 1e-4 * rng.standard_normal(at).astype(np.float32), runs


def windows(samples: np.ndarray, length: int) -> Iterator[tuple[int, int]]:
    """First frame, a multiple of the stride, and the sample behind the last of each window."""
    for start in range(STRIDE * HOP, samples.size - length + 1, STEP):
        yield start // HOP // STRIDE * STRIDE, start + length


def pooled(student: Student, activations: Tensor, mask: Tensor) -> np.ndarray:
    """Probabilities (C,) from the activations of the blocks."""
    blocks, student.blocks = student.blocks, nn.Sequential(Given(activations))
    spectrum = activations.new_zeros(1, student.norm.spectrum)  # of an unknown speaker
    scores = student.logits(activations.new_zeros(1, 1, 1), mask, spectrum)
    probs = torch.softmax(scores, dim=-1)[0].numpy()
    student.blocks = blocks
    return probs


class Given(nn.Module):
    """In place of blocks: an answer that is there."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        return self.answer


def ua(student: Student, probs: np.ndarray, runs: Runs, length: int) -> float:
    """Mean of per-class recalls, %, of the windows within one run."""
    hits: dict[str, list[bool]] = {}
    for number, row in enumerate(probs):
        start = STRIDE * HOP + number * STEP
        for begin, end, label in runs:
            if begin <= start and start + length <= end:
                hits.setdefault(label, []).append(student.labels[int(row.argmax())] == label)
    return 100 * float(np.mean([np.mean(found) for found in hits.values()])) if hits else float("nan")


def measure(student: Student, samples: np.ndarray, runs: Runs, seconds: float) -> dict[str, list[float]]:
    """Way -> frames a hop, agreement %, mean |Δp|, largest |Δp|, mean |Δp| from hop to hop, UA."""
    length = round(seconds * SAMPLE_RATE)
    every = length / HOP + 1
    budgets = [budget for budget in BUDGETS if budget < every]
    keepers = {
        f"kept, {budget} frames a hop" if budget else "kept": Keeping(student.blocks, budget)
        for budget in budgets
    }
    jumping = f"{list(keepers)[-1]}, all after 1 dB"
    keepers |= {jumping: Keeping(student.blocks, budgets[-1]), KEPT: Keeping(student.blocks)}
    steady = student.features(torch.from_numpy(samples)[None])[:2]  # with the statistics of the stream
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    level = 0.0
    for number, (first, end) in enumerate(windows(samples, length)):
        own = (STRIDE * HOP + number * STEP) // HOP
        starts = {ANEW: first, DEVICE: own} | {name: first - shift for name, shift in SHIFTS.items()}
        for name, start in starts.items():
            window = torch.from_numpy(samples[start * HOP : end])[None]
            features, mask, _ = student.features(window)
            found[name].append(pooled(student, student.blocks(features[:, None]), mask))
            if name == ANEW:
                x, valid = features[:, None], mask
                loudest = float(student.frontend.power(window).sum(dim=-1).max())
        fresh = not level / RATIO < loudest < level * RATIO
        level = loudest if fresh else level
        for name, keeper in keepers.items():
            if name != KEPT:
                found[name].append(pooled(student, keeper(x, first, fresh and name == jumping), valid))
        part, valid = (value[..., first : first + x.shape[3]] for value in steady)
        found[STEADY].append(pooled(student, student.blocks(part[:, None]), valid))
        found[KEPT].append(pooled(student, keepers[KEPT](part[:, None], first), valid))
    rows = {}
    for name, rows_found in found.items():
        probs, reference = np.stack(rows_found), np.stack(found[STEADY if name == KEPT else ANEW])
        frames = keepers[name].frames / len(probs) if name in keepers else every
        moves = compared(probs[1:], probs[:-1])[1]
        rows[name] = [frames, *compared(probs, reference), moves, ua(student, probs, runs, length)]
    return rows


def compared(probs: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Agreement of the decisions in %, mean and largest |Δp|."""
    difference = np.abs(probs - other)
    same = probs.argmax(axis=1) == other.argmax(axis=1)
    return 100 * float(same.mean()), float(difference.mean()), float(difference.max())


def main() -> int:
    """Print a table for each window: means over the students, and the worst of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--transfers", help="comma-separated SOURCE>TARGET; default: all pairs")
    parser.add_argument("--windows", type=float, nargs="+", default=[3.0, 10.0], metavar="SECONDS")
    parser.add_argument("--seconds", type=float, default=240.0, help="of stream for each student")
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "mifuse" / "transfers")
    parser.add_argument("--newest", action="store_true", help="students of any settings")
    parser.set_defaults(seeds=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tables: dict[float, list[dict[str, list[float]]]] = {seconds: [] for seconds in options.windows}
    try:
        found = students(options)
    except MifuseError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    with torch.inference_mode():
        for folder, target in found.values():
            student = load_student(folder)
            samples, runs = stream(target, student.labels, options.seconds, AudioCache())
            for seconds, rows in tables.items():
                rows.append(measure(student, samples, runs, seconds))
                print(".", end="", file=sys.stderr, flush=True)
    print(f"{len(found)} students, {options.seconds:g} s of stream each: {', '.join(found)}")
    print("mean of the students, and the worst in brackets")
    columns = "frames | same decision, % | mean Δp | max | hop to hop | UA"
    for seconds, of_students in tables.items():
        print(f"\n| window of {seconds:g} s | {columns} |\n| --- {'| ---: ' * 6}|")
        for way in of_students[0]:
            frames, same, mean, most, moves, recall = np.array([rows[way] for rows in of_students]).T
            cells = [f"{frames.mean():.0f}", f"{same.mean():.1f} ({same.min():.1f})"]
            cells += [f"{mean.mean():.4f} ({mean.max():.4f})", f"{most.max():.2f}"]
            print(f"| {way} | {' | '.join(cells)} | {moves.mean():.4f} | {recall.mean():.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
