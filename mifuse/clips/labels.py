"""Labels: which emotions there are, their one order, and the other words by which people call them.

A word is looked up in three steps: `--map` renames it, a label of the set is itself, and an alias (of
`aliases.json`, or of the user's own file) stands for the label of the set that means the same emotion.
"""

from __future__ import annotations

import difflib
import functools
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path

from mifuse.errors import MifuseError
from mifuse_runtime.settings import NO_SPEECH, NOT_SURE

LABELS = ("angry", "happy", "neutral", "sad")
"""The labels where nothing says otherwise; as every set in alphabetical order."""

FEWEST, MOST = 2, 32  # labels of a set
LONGEST = 40  # characters of a label: it stands in tables, prompts and on screens
TAKEN = (NO_SPEECH, NOT_SURE)  # states of the device
# Where a set lacks the first it counts as the second, as most papers on IEMOCAP have it.
KIN = {"excited": "happy"}
NEAR = 0.85  # similarity of a word to an alias from which it is a slip of the pen: hapy, neutrla
LONG = 4  # letters of the aliases that slips are looked for among
NAMED = 8  # unknown words that an error names


@functools.cache
def known_aliases() -> Mapping[str, str]:
    """Every alias, folded -> the emotion that it means, in English."""
    text = resources.files("mifuse.clips").joinpath("aliases.json").read_text("utf-8")
    return {
        alias: emotion
        for emotions in json.loads(text).values()
        for emotion, aliases in emotions.items()
        for alias in (emotion, *aliases)
    }


def folded(word: str) -> str:
    """A word without what makes no difference: capitals, Unicode form, spaces.

    >>> folded("  Pleasant_Surprise ")
    'pleasant surprise'
    """
    return " ".join(unicodedata.normalize("NFC", word).lower().replace("_", " ").split())


@dataclass(frozen=True)
class Naming:
    """How words of manifests, draws and checkpoints become labels.

    >>> Naming(("happy", "sad")).label("Joie"), Naming(("joie", "tristesse")).label("happiness")
    ('happy', 'joie')
    >>> Naming(LABELS).label("bored"), Naming(LABELS, renamed={"bored": ""}).label("Bored")
    (None, '')
    """

    labels: tuple[str, ...] | None = None
    """The set; None takes any word, aliases by their English name."""
    aliases: Mapping[str, str] = field(default_factory=known_aliases)
    """Folded word -> emotion."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Folded word -> label; an empty one leaves it out."""

    def over(self, labels: Iterable[str] | None) -> Naming:
        """The same for another set, in the order given."""
        return replace(self, labels=None if labels is None else tuple(labels))

    def label(self, word: str) -> str | None:
        """The label that a word means; empty if it is to be left out, None if it means no label."""
        name = folded(word)
        if name in self.renamed:
            name = folded(self.renamed[name])
            if not name:
                return ""
        if self.labels is None:
            return self.aliases.get(name, name)
        emotion = self.aliases.get(name, name)
        return next(
            (self._meant[one] for one in (name, emotion, KIN.get(emotion)) if one in self._meant), None
        )

    @functools.cached_property
    def _meant(self) -> dict[str | None, str]:
        """Folded word and emotion -> label of the set."""
        labels = self.labels or ()
        meant: dict[str | None, str] = {
            self.aliases.get(folded(label), folded(label)): label for label in labels
        }
        return meant | {folded(label): label for label in labels}

    def settled(self, words: Iterable[str]) -> Naming:
        """Without a set: the four where all the words are theirs, else the same."""
        four = self.over(LABELS)
        return four if self.labels is None and all(four.label(word) is not None for word in words) else self

    def named(self, words: Mapping[str, int], where: str, what: str = "row") -> dict[str, str]:
        """The label of each word, empty for those to be left out; see `settled`.

        Args:
            words: word -> how often it occurs.
            what: they are in.

        Raises:
            MifuseError: words that mean no label, with their counts and what they may be slips of.
        """
        naming = self.settled(words)
        found = {word: naming.label(word) for word in words}
        unknown = {word: self._nearest(word) for word, label in found.items() if label is None}
        if self.labels is None:  # a new label, or a slip of the pen
            slips = {word: self._nearest(word) for word, label in found.items() if label == folded(word)}
            unknown |= {word: near for word, near in slips.items() if near}
        if unknown:
            raise MifuseError(self._unknown(words, unknown, where, what))
        return {word: label or "" for word, label in found.items()}

    def _unknown(self, words: Mapping[str, int], unknown: Mapping[str, str], where: str, what: str) -> str:
        said = []
        for word in sorted(unknown, key=lambda word: -words[word])[:NAMED]:
            near = f", did you mean {unknown[word]}?" if unknown[word] else ""
            said.append(f"{word!r} ({words[word]} {what}{'s' if words[word] > 1 else ''}{near})")
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        expected = f"the labels are {', '.join(self.labels)}" if self.labels else "--labels keeps it"
        return (
            f"{where}: unknown label {', '.join(said)}{more}; {expected}; "
            "rename with --map OLD=NEW, leave out with --map OLD="
        )

    def _nearest(self, word: str) -> str:
        name = folded(word)
        if name in self.aliases:
            return ""
        among = {label: label for label in self.labels or ()}
        among |= {alias: emotion for alias, emotion in self.aliases.items() if len(alias) >= LONG}
        near = difflib.get_close_matches(name, among, 1, NEAR)
        return near[0] if near else ""

    def set_of(self, words: Iterable[str], where: str) -> tuple[str, ...]:
        """The set that these words make: checked, each once, in alphabetical order.

        Raises:
            MifuseError: fewer than 2 or more than 32, one emotion under two words, or a name that is none.
        """
        found: dict[str, str] = {}
        for word in dict.fromkeys(map(folded, words)):
            if (
                not word
                or not word.isprintable()
                or len(word) > LONGEST
                or set(word) & set(',=+"|')
                or word in TAKEN
            ):
                raise MifuseError(
                    f"{where}: {word[:LONGEST]!r} cannot be a label: use 1 to {LONGEST} printable characters "
                    f'without = + , | ", and neither {NO_SPEECH!r} nor {NOT_SURE!r}'
                )
            emotion = self.aliases.get(word, word)
            if emotion in found:
                raise MifuseError(
                    f"{where}: {found[emotion]!r} and {word!r} are one emotion: keep one of the two"
                )
            found[emotion] = word
        if not FEWEST <= len(found) <= MOST:
            names = ", ".join(sorted(found.values())[:NAMED]) or "none"
            raise MifuseError(f"{where}: {len(found)} labels ({names}): a set has {FEWEST} to {MOST}")
        return tuple(sorted(found.values()))


def naming(labels: str | None = None, aliases: Path | None = None, mapping: Sequence[str] = ()) -> Naming:
    """What `--labels`, `--aliases` and `--map` say.

    Args:
        labels: comma-separated.
        aliases: JSON, label -> list of other words for it.
        mapping: `old=new`, several separated by commas; without `new` the word is left out.

    Raises:
        MifuseError: no set, no such file, or `old=new` without an equals sign.
    """
    known = Naming(aliases={**known_aliases(), **_read_aliases(aliases)}) if aliases else Naming()
    renamed: dict[str, str] = {}
    for part in ",".join(mapping).split(","):
        old, equals, new = part.partition("=")
        if part.strip() and not (folded(old) and equals):
            raise MifuseError(
                f"--map {part.strip()!r}: write OLD=NEW, as in calm=neutral, or OLD= to leave it out"
            )
        if part.strip():
            renamed[folded(old)] = folded(new)
    known = replace(known, renamed=renamed)
    return known if labels is None else known.over(known.set_of(labels.split(","), "--labels"))


def _read_aliases(file: Path) -> dict[str, str]:
    try:
        content = json.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise MifuseError(f"--aliases {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise MifuseError(f"--aliases {file}: not JSON ({error})") from error
    lists = content.values() if isinstance(content, dict) else [None]
    if not all(isinstance(words, list) and all(isinstance(w, str) for w in words) for words in lists):
        raise MifuseError(f'--aliases {file}: write {{"label": ["another word", …], …}}')
    found: dict[str, str] = {}
    for label, words in content.items():
        for word in (label, *words):
            if found.setdefault(folded(word), folded(label)) != folded(label):
                raise MifuseError(
                    f"--aliases {file}: {word!r} stands for {found[folded(word)]!r} and {label!r}: keep one"
                )
    return found


def require_same_labels(expected: Sequence[str], found: Sequence[str], who: str) -> None:
    """Refuse two sets that differ; order does not matter.

    Raises:
        MifuseError: with both sets.
    """
    if set(expected) != set(found):
        raise MifuseError(
            f"{who} knows the labels {', '.join(sorted(found))}, expected {', '.join(sorted(expected))}: "
            "use one set for classifier, LALM and manifest, or bring them together with --map OLD=NEW"
        )
