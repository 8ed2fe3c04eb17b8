"""Classifiers of `transformers`: a whole checkpoint from the hub, or a head of ours on a frozen encoder.

The head is the one that `transformers` itself puts on WavLM, wav2vec2, HuBERT and Whisper: a weighted mean
of all layers, a projection, a linear classifier, and a mean over time. All of it is linear, so the mean over
time may come first; the encoder is run once a clip, and what is kept on disk is one vector a layer. Ours is
fitted by `mifuse.models.head`.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mifuse.clips.audio import AudioCache
from mifuse.clips.keys import key
from mifuse.clips.labels import FEWEST, LABELS, Naming, known_aliases
from mifuse.clips.manifest import Clip
from mifuse.clips.shards import Joined, table
from mifuse.errors import MifuseError
from mifuse.models.checkpoints import HEAD, first_line, quietly, read_checkpoint
from mifuse.models.frontend import SAMPLE_RATE
from mifuse.models.head import Linear, Spread
from mifuse.models.speaker_norm import speaker_ids
from mifuse_runtime import audio as runtime_audio
from mifuse_runtime.dimensions import problems

Array = NDArray[np.float64]

FRAMES = 2  # of Whisper's spectrogram to a position
SPREAD = "states.safetensors"  # file of a folder of ours, beside the checkpoint: what its head was fitted to
SHORTEST = SAMPLE_RATE // 10  # samples: shorter clips are padded


class HubModel(nn.Module):
    """A `transformers` audio-classification checkpoint with labels of its own.

    Args:
        name: hub name or folder of a checkpoint (wav2vec2, HuBERT, WavLM, Whisper, …).
        labels: of a new head.
        dropout: of a new head for these labels, untrained, in place of the checkpoint's; None keeps that.

    Raises:
        MifuseError: the checkpoint cannot be read, has no head or no place for one.
    """

    def __init__(self, name: str, labels: Sequence[str] = LABELS, dropout: float | None = None) -> None:
        super().__init__()
        from transformers import Wav2Vec2FeatureExtractor

        self.model: Any
        self.extractor: Any
        self.model, self.extractor = read_checkpoint(name, labels, dropout)
        self.words = [str(label) for _, label in sorted(self.model.config.id2label.items())]
        self.says_numbers = self.model.config.problem_type == "regression"  # from 0 to 1, no probabilities
        self.hears_samples = isinstance(self.extractor, Wav2Vec2FeatureExtractor)  # else a spectrogram
        self.eval()

    def forward(self, samples: Tensor) -> Tensor:
        """Probabilities, or numbers from 0 to 1, (batch, words), of samples (batch, n) at 16 kHz."""
        logits: Tensor = self._run(samples).logits
        return logits.clamp(0, 1) if self.says_numbers else logits.softmax(dim=-1)

    @property
    def dropout(self) -> float | None:
        """Dropout before the head that we trained; None for a checkpoint of somebody else's."""
        return getattr(self.model.config, "head_dropout", None)

    def _run(self, samples: Tensor, **options: bool) -> Any:
        """What the model says of samples (batch, n); Whisper under a head of ours reads their own length."""
        inputs = self._inputs(samples)
        if not self._own_length:
            return self.model(**inputs, **options)
        with _positions(self.model.encoder, inputs["input_features"].shape[-1] // FRAMES):
            return self.model(**inputs, **options)

    def states(self, samples: Tensor) -> list[Tensor]:
        """Hidden states of each layer, (batch, frames, hidden), of samples (batch, n)."""
        return list(self._run(samples, output_hidden_states=True).hidden_states)

    @property
    def _own_length(self) -> bool:
        """Others' heads were trained on Whisper's 30 s, of which most is padding; ours are not."""
        return self.dropout is not None and hasattr(self.extractor, "chunk_length")

    def _inputs(self, samples: Tensor) -> dict[str, Tensor]:
        # The convolutions of wav2vec2 and its heirs need 25 ms at least.
        missing = torch.sym_max(0, SHORTEST - samples.shape[1])  # type: ignore[no-untyped-call]
        samples = nn.functional.pad(samples, (0, missing))
        device = next(self.model.parameters()).device
        if self.hears_samples:  # by operations that an exported graph has, too
            return {"input_values": self._normalised(samples.to(device))}
        inputs = self.extractor(
            list(samples.cpu().numpy()),
            sampling_rate=SAMPLE_RATE,
            return_tensors="pt",
            # As it is, Whisper's encoder takes 30 s, however short the clip is.
            padding="max_length"
            if hasattr(self.extractor, "chunk_length") and not self._own_length
            else True,
            pad_to_multiple_of=FRAMES * self.extractor.hop_length if self._own_length else None,
        )
        return {name: value.to(device) for name, value in inputs.items()}

    def _normalised(self, samples: Tensor) -> Tensor:
        """Zero mean and unit variance for each clip, where the checkpoint was trained so."""
        if not self.extractor.do_normalize:
            return samples
        samples = samples - samples.mean(dim=1, keepdim=True)
        return samples / torch.sqrt((samples * samples).mean(dim=1, keepdim=True) + 1e-7)


class HubClassifier(HubModel):
    """A `transformers` audio-classification checkpoint with its labels mapped to ours.

    Args:
        name, dropout: as of `HubModel`.
        labels: ours; each must be found among the checkpoint's, under its name or an alias. None: those of
            our own head; of others' the four where it has them, else all its emotions. A regression, such as
            audEERING's of arousal, dominance and valence, has none: it has `dimensions`.

    Raises:
        MifuseError: as of `HubModel`, or it does not cover our labels.
    """

    chosen: Tensor

    def __init__(self, name: str, labels: Sequence[str] | None = None, dropout: float | None = None) -> None:
        super().__init__(name, labels or LABELS, dropout)
        self.dimensions: dict[str, tuple[float, float]] = {}
        if self.says_numbers:
            self.labels: tuple[str, ...] = ()
            self.counts, self.spread = [], None
            self.dimensions = _dimensions(name, self.words, labels)
            return
        self.labels = tuple(labels or (self.words if self.dropout is not None else _labels(self.words)))
        sources = _sources(name, self.words, self.labels)
        self.counts = [len(found) for found in sources]  # of their labels that are one of ours
        self.register_buffer("chosen", torch.tensor([*itertools.chain(*sources)]), persistent=False)
        self.spread = _spread(Path(name), self.model.config.hidden_size) if self.dropout is not None else None

    @property
    def knows_speakers(self) -> bool:
        """Whether draws differ by what is known of the speaker."""
        return self.spread is not None

    def forward(self, samples: Tensor) -> Tensor:
        """Probabilities (batch, C) over our labels, or dimensions (batch, V), of samples (batch, n)."""
        if self.says_numbers:
            return super().forward(samples)
        return self._ours(self._run(samples).logits)

    def _ours(self, logits: Tensor) -> Tensor:
        chosen = logits.index_select(-1, self.chosen).softmax(dim=-1)
        return torch.stack([part.sum(dim=-1) for part in torch.split(chosen, self.counts, dim=-1)], dim=-1)

    def embeddings(
        self, clips: Sequence[Clip], cache: AudioCache, progress: Callable[[], object] = lambda: None
    ) -> Embeddings:
        """Hidden states of the clips, pooled over time; the encoder is run for those that are new.

        Args:
            progress: called after each clip that the encoder was run for.
        """
        states = key(("audio", "trim", "encoder"), [runtime_audio], encoder=self.encoder_digest())
        rows = table(clips, cache, "encoder", states, lambda part: self._encode(part, cache, progress))
        return Embeddings(rows, speaker_ids([clip.speaker for clip in clips]))

    def pooled(self, embeddings: Embeddings) -> Tensor:
        """The weighted mean of the layers, which the head is linear in: (N, hidden)."""
        weights = self.model.layer_weights.detach().softmax(dim=0)[:, None]
        batches = (embeddings.batch(index) for index in embeddings.batches())
        return torch.cat([(states * weights).sum(dim=1) for states in batches])

    def scores(self, pooled: Tensor) -> Tensor:
        """Of the words of the head, (N, words), from what `pooled` gives."""
        found: Tensor = self.model.classifier(self.model.projector(pooled))
        return found

    def take(self, head: Linear) -> None:
        """Put a fitted head on the encoder, in the form of `transformers`."""
        projector, classifier = self.model.projector, self.model.classifier
        count = len(head.bias)
        for layer in (projector, classifier):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        projector.weight.data[:count], projector.bias.data[:count] = head.weight, head.bias
        classifier.weight.data[:, :count] = torch.eye(count)
        self.spread = head.spread

    def encoder_digest(self) -> str:
        """Of the encoder's weights and of what it is given, the head left out."""
        encoder = {k: v for k, v in self.model.state_dict().items() if not k.startswith(HEAD)}
        digest = hashlib.sha256(self.extractor.to_json_string().encode())
        if self._own_length:
            digest.update(b"own length")
        for name, weights in sorted(encoder.items()):
            digest.update(name.encode() + weights.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _encode(
        self, clips: Sequence[Clip], cache: AudioCache, progress: Callable[[], object]
    ) -> NDArray[np.float16]:
        """Clips side by side, a thread each.

        Threads that share a clip wait for each other at every layer: beside other programs on the same cores
        a clip of Whisper base took 1.5 s of CPU so (114 clips), and 0.25 s a thread each (300 clips).
        """
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        threads = torch.get_num_threads()
        free: SimpleQueue[HubModel] = SimpleQueue()
        for _ in range(1 if torch.cuda.is_available() else threads):
            free.put(self._twin())

        @torch.inference_mode()
        def encoded(clip: Clip) -> NDArray[np.float16]:
            model = free.get()
            try:
                states = model.states(torch.from_numpy(cache.samples(clip))[None])
            finally:
                free.put(model)
            kept = [
                torch.stack([*torch.std_mean(state[0].float(), dim=0, correction=0)][::-1])
                for state in states
            ]
            return np.asarray(torch.stack(kept).half().cpu().numpy())

        pool = ThreadPoolExecutor(free.qsize(), initializer=torch.set_num_threads, initargs=(1,))
        rows = []
        try:
            for row in pool.map(encoded, clips):
                rows.append(row)
                progress()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)
        self.model.cpu()
        return np.stack(rows)

    def _twin(self) -> HubModel:
        """The same weights in modules of their own: what a pass changes in these is no other thread's."""
        return copy.deepcopy(self, {id(shared): shared for shared in (*self.parameters(), *self.buffers())})

    @torch.inference_mode()
    def draws(self, embeddings: Embeddings, draws: int, seed: int = 0) -> Array:
        """Draws of the head that we trained, with its dropout on, (draws, N, C): one pass of the encoder.

        Clips of known speakers are taken within the speaker, where the head was fitted so.
        """
        torch.manual_seed(seed)
        values, centre = self.pooled(embeddings), torch.zeros(1)
        if self.spread is not None:
            values, centre = self.spread.within(values, embeddings.speakers), self.spread.mean
        out = np.empty((draws, len(embeddings), len(self.labels)))
        for index in embeddings.batches():
            part = values[index] - centre
            for draw in out:  # what is dropped is as in the mean of the training's clips
                dropped = nn.functional.dropout(part, self.dropout or 0.0) + centre
                draw[index] = self._ours(self.scores(dropped)).cpu().numpy()
        return out

    def save_pretrained(self, folder: Path) -> None:
        """Write the folder that `hf:FOLDER` reads."""
        with quietly():
            self.model.save_pretrained(folder)
        self.extractor.save_pretrained(folder)
        if self.spread is not None:
            save_file(vars(self.spread), folder / SPREAD)


def _dimensions(
    name: str, words: Sequence[str], labels: Sequence[str] | None
) -> dict[str, tuple[float, float]]:
    """What a regression says, each from 0 to 1.

    Raises:
        MifuseError: emotions were asked of it, or its numbers have no names.
    """
    names = [word.strip().lower() for word in words]
    if labels:
        raise MifuseError(f"hf:{name} says numbers ({', '.join(names)}) and no emotions: leave out --labels")
    unnamed = any(re.fullmatch(r"label[ _]?\d+", word) for word in names)
    found = dict.fromkeys(names, (0.0, 1.0))
    problem = next(problems(found), None) or ("one name twice" if len(found) < len(names) else None)
    if unnamed or problem:
        why = problem or "its numbers have no names"
        raise MifuseError(f"hf:{name} ({', '.join(names)}): {why}: set id2label in its config.json")
    return found


def _labels(theirs: Sequence[str]) -> list[str]:
    """Our labels for a checkpoint of others: all that it has where they are emotions, but the four if it has
    them or something else, such as LABEL_0."""
    naming, names = Naming(LABELS), {str(Naming().label(word)) for word in theirs}
    has_four = {naming.label(word) for word in theirs} >= set(LABELS)
    emotions = len(names) >= FEWEST and names <= set(known_aliases())
    return [*LABELS] if has_four or not emotions else sorted(names)


def _sources(name: str, theirs: Sequence[str], labels: Sequence[str]) -> list[list[int]]:
    """For each of our labels the numbers of those of the checkpoint that mean it."""
    naming = Naming(tuple(labels))
    sources = [[i for i, t in enumerate(theirs) if naming.label(t) == ours] for ours in labels]
    missing = [ours for ours, found in zip(labels, sources, strict=True) if not found]
    if missing:
        raise MifuseError(
            f"hf:{name} has the labels {', '.join(theirs)}: none of them is {', '.join(missing)}; "
            "set id2label in its config.json to names that are"
        )
    return sources


def _spread(folder: Path, size: int) -> Spread | None:
    """What the head in a folder of ours was fitted to; None: it is new, or of before 0.2."""
    file = folder / SPREAD
    if not file.is_file():
        return None
    try:
        found = Spread(**load_file(file))
    except (SafetensorError, OSError, TypeError) as error:
        raise MifuseError(f"{file} cannot be read ({first_line(error)}): train the head again") from error
    if {tuple(part.shape) for part in vars(found).values()} != {(size,)}:
        raise MifuseError(f"{file} is of another encoder: train the head again")
    return found


class Embeddings:
    """Hidden states of N clips: mean and deviation over time, (N, layers, 2, hidden) float16, on disk.

    Args:
        speakers: of the clips, as from `speaker_ids`; None: nobody is known.
    """

    def __init__(self, rows: Joined, speakers: NDArray[np.int64] | None = None) -> None:
        self.rows = rows
        self.speakers = np.full(len(rows), -1) if speakers is None else speakers

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """Means of some of the clips, which is what a head takes: float32 (batch, layers, hidden)."""
        means = [self.rows[i : i + 1][:, :, 0] for i in indices]
        return torch.from_numpy(np.concatenate(means).astype(np.float32))

    def batches(self, size: int = 256) -> Iterator[NDArray[np.int64]]:
        """Every clip once, in order."""
        for start in range(0, len(self), size):
            yield np.arange(start, min(start + size, len(self)))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """A head's matrices are small: threads that share them wait for each other longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _positions(encoder: Any, count: int) -> Iterator[None]:
    """Whisper's encoder has `count` positions meanwhile, the first of its 1,500: 2 s cost a tenth of 30."""
    config, known, most = encoder.config, encoder.embed_positions, encoder.config.max_source_positions
    encoder.embed_positions = nn.Embedding.from_pretrained(known.weight[:count])  # type: ignore[no-untyped-call]
    config.max_source_positions = min(count, most)
    try:
        yield
    finally:
        encoder.embed_positions, config.max_source_positions = known, most
