"""From what the command line says to a teacher, its price, and where its questions go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS, Naming
from mifuse.clips.manifest import Clip
from mifuse.errors import MifuseError
from mifuse.teachers.base import Teacher
from mifuse.teachers.prices import Price, price_of
from mifuse.teachers.prompts import Prompts, describe
from mifuse_runtime.dimensions import Ranges

ROOMY = 8  # labels that the usual length of an answer has room for
LABEL_TOKENS = 30  # of a label and its number in an answer, at most: foreign words take many
NAMES = ("anthropic", "openai", "replay")
CLASSIFIERS = ("hf", "funasr")
UNASKED = ("replay", *CLASSIFIERS)  # these get no question: their labels are their own


@dataclass(frozen=True)
class Opened:
    """A teacher that can be asked."""

    teacher: Teacher
    price: Price | None = None
    """None: nothing is billed."""
    host: str = ""
    """Where the questions go; empty when they stay on this machine."""
    sends: str = ""
    """What they hold, in words."""
    key: str = ""
    """The environment variable that must hold a key."""
    prepare: Callable[[Callable[[], object]], object] | None = None
    """To be called before the first question, with a callback for each clip."""
    batch: bool = False
    """Ask by batches."""
    unencrypted: bool = False
    """A key goes to another machine over plain HTTP."""
    prompts: Prompts | None = None
    """The questions; None: draws are over the labels of the teacher or of a file, whatever they are."""
    told: Mapping[str, str] = field(default_factory=dict)
    """What a summary says of a teacher that gets no question."""

    @property
    def notes(self) -> Mapping[str, str]:
        """What a summary says of the teacher."""
        return {"labels": ", ".join(self.labels) or "none"} if self.labels is not None else self.told

    @property
    def labels(self) -> tuple[str, ...] | None:
        """What every answer must name, beside numbers; None: any."""
        return self.prompts.labels if self.prompts else None


class OptionError(MifuseError):
    """What was asked for does not exist or does not go together."""


def open_teacher(
    spec: str,
    model: str | None,
    manifest: Path,
    clips: Sequence[Clip],
    cache: AudioCache,
    *,
    labels: Sequence[str] = LABELS,
    descriptions: Sequence[str] = (),
    naming: Naming | None = None,
    dimensions: Ranges | None = None,
    options: Mapping[str, Any] | None = None,
) -> Opened:
    """The teacher that `--teacher` and `--model` mean.

    Args:
        labels: that are asked for; a replay and a classifier have their own.
        naming: of a classifier's labels.
        descriptions: of labels, as of `prompts.describe`.
        dimensions: to ask for beside them; a replay and a classifier have their own.
        options: settings of the teacher's config that differ from their defaults, and `price`, `batch`.

    Raises:
        OptionError: no such teacher, no model, no price, or an option that this teacher does not have.
    """
    kind, _, rest = spec.partition(":")
    given = {
        name: value for name, value in (options or {}).items() if value is not None and value is not False
    }
    price_given, batch = given.pop("price", None), bool(given.pop("batch", False))
    if batch and kind != "anthropic":
        raise OptionError(f"--batch: {kind} has no batches here: leave it out or use --teacher anthropic")
    asked: dict[str, Any] = {"labels": tuple(labels), "descriptions": _meanings(kind, descriptions, labels)}
    asked["dimensions"] = _numbers(kind, dimensions, labels, given)
    if kind == "replay":
        return _open_replay(rest or manifest.parent / "lalm_draws.jsonl", model, given)
    if kind in CLASSIFIERS and rest:
        return _open_classifier(kind, rest, cache, naming=naming, dimensions=dimensions, given=given)
    if kind == "local" and rest:
        return _open_local(rest, cache, given, asked)
    if kind not in NAMES or rest:
        named = "replay:FILE, local:NAME, hf:NAME, funasr:NAME"
        raise OptionError(f"unknown teacher {spec!r}: use one of {', '.join(NAMES)}, {named}")
    if not model:
        raise OptionError(f"--teacher {kind} needs --model: `docs/teachers.md` helps to choose one")
    key = "" if given.get("base_url") else f"{kind.upper()}_API_KEY"
    price = _price(kind, model, price_given, batch)
    settings = {"model": model, **given}
    if kind == "anthropic":
        from mifuse.teachers.anthropic import AnthropicConfig, AnthropicTeacher

        settings = _room(AnthropicConfig, settings, labels)
        reader = AnthropicTeacher(_configure(AnthropicConfig, kind, settings), clips, cache, **asked)
        sends = "a picture and measurements of each voice, not the recordings, and their transcripts, if any,"
        return Opened(
            *(reader, price, reader.host, sends, key, reader.measure, batch),
            unencrypted=reader.unencrypted,
            prompts=reader.prompts,
        )
    return _open_openai(kind, settings, cache, price=price, key=key, asked=asked)


def _meanings(kind: str, descriptions: Sequence[str], labels: Sequence[str]) -> tuple[tuple[str, str], ...]:
    if kind in UNASKED and descriptions:
        raise OptionError(f"--describe: {kind} asks nothing: leave it out")
    try:
        return describe(descriptions, labels)
    except MifuseError as error:
        raise OptionError(str(error)) from error


def _numbers(kind: str, dimensions: Ranges | None, labels: Sequence[str], given: Mapping[str, Any]) -> Ranges:
    if kind == "replay" and dimensions:
        raise OptionError("--targets: replay asks nothing and says what it has: leave it out")
    if given.get("logprobs") and dimensions:
        raise OptionError("--probs logprobs reads one word, no numbers: leave it out, or --targets")
    if not (labels or dimensions):
        raise OptionError("--labels none asks for numbers alone: say which, as in --targets arousal,valence")
    if both := sorted({*labels} & {*(dimensions or {})}):
        raise OptionError(f"--targets: {both[0]!r} is a label, too: rename one")
    return dimensions or {}


def _open_local(name: str, cache: AudioCache, given: dict[str, Any], asked: Mapping[str, Any]) -> Opened:
    """A LALM on this machine."""
    from mifuse.teachers.local import LocalConfig, LocalTeacher

    settings = _room(LocalConfig, {"model": name, **given}, asked["labels"])
    local = LocalTeacher(_configure(LocalConfig, "local", settings), cache, **asked)
    return Opened(local, prompts=local.prompts)


def _open_openai(
    kind: str,
    settings: dict[str, Any],
    cache: AudioCache,
    *,
    price: Price,
    key: str,
    asked: Mapping[str, Any],
) -> Opened:
    """A service that gets the recordings."""
    from mifuse.teachers.openai import TOP_LOGPROBS, OpenAIConfig, OpenAITeacher

    labels = asked["labels"]
    if settings.get("logprobs") and len(labels) > TOP_LOGPROBS:
        raise OptionError(
            f"--probs logprobs: services give {TOP_LOGPROBS} tokens, too few for {len(labels)} labels"
        )
    settings = _room(OpenAIConfig, settings, labels)
    listener = OpenAITeacher(_configure(OpenAIConfig, kind, settings), cache, **asked)
    seconds = listener.config.max_seconds
    sends = f"the recordings (up to {seconds:g} s of each) and their transcripts, if any,"
    return Opened(
        *(listener, price, listener.host, sends, key),
        unencrypted=listener.unencrypted,
        prompts=listener.prompts,
    )


def _open_classifier(
    kind: str,
    name: str,
    cache: AudioCache,
    *,
    naming: Naming | None,
    dimensions: Ranges | None,
    given: dict[str, Any],
) -> Opened:
    """A model on this machine that says probabilities, or numbers."""
    from mifuse.teachers import classifiers, funasr

    listen = classifiers.HubListener if kind == "hf" else funasr.FunasrListener
    config = _configure(classifiers.ClassifierConfig, kind, {"model": name, **given})
    teacher = classifiers.ClassifierTeacher(kind, config, listen, cache, naming, ranges=dimensions)
    told = {
        "labels": ", ".join(dict.fromkeys(filter(None, teacher.labels.values()))) or "none",
        **({"dimensions": ", ".join(teacher.ranges)} if teacher.ranges else {}),
        "draws_of": "the clip, then copies changed a little: the model itself says the same each time",
    }
    return Opened(teacher, told=told)


def _open_replay(file: str | Path, model: str | None, given: dict[str, Any]) -> Opened:
    """A file that is played back: it is asked nothing, and has no settings."""
    from mifuse.teachers.replay import ReplayTeacher

    _configure(dict, "replay", given)
    return Opened(ReplayTeacher(file, model))


def _room(config: Any, given: dict[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """The settings with room for an answer that names many labels."""
    more = LABEL_TOKENS * (len(labels) - ROOMY)
    if more <= 0 or "max_tokens" in given:
        return given
    return given | {"max_tokens": config.__dataclass_fields__["max_tokens"].default + more}


def _price(kind: str, model: str, given: str | None, batch: bool) -> Price:
    try:
        return price_of(kind, model, given, batch)
    except MifuseError as error:
        raise OptionError(str(error)) from error


def _configure(config: Any, kind: str, given: Mapping[str, Any]) -> Any:
    known = getattr(config, "__dataclass_fields__", {})
    for name in given:
        if name not in known:
            option = name.replace("_", "-")
            raise OptionError(f"--{option}: the teacher {kind} has no such setting: leave it out")
    try:
        return config(**given)
    except MifuseError as error:  # a value outside its range
        raise OptionError(str(error)) from error
