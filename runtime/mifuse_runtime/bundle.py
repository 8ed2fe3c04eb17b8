"""The bundle: a folder with `bundle.json` and the model files that it names, each with its SHA-256."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from mifuse_runtime.errors import BundleError
from mifuse_runtime.settings import NO_SPEECH, NOT_SURE, FrontEnd, Settings, problems

SCHEMA = 1
NAME = "bundle.json"
MAX_JSON = 1 << 20  # bytes: a bundle.json holds a few kB; anything near this is not one
MAX_FILE = 1 << 29  # bytes: the largest student has 4 MB, a base model of transformers in float 380
MAX_NAMES = 1000  # labels, files
EMBEDDING = "embedding"  # last output of a graph with a head for known speakers: float32 (batch, D)
DIMENSIONS = "dimensions"  # output behind the probabilities, or the first: float32 (batch, V), from 0 to 1
SPEECH = "speech"  # of a gated bundle's whole graphs, before an embedding: float32 (batch, frames), log odds
POWER = "power"  # input of a body: float32 (batch, frames, mels)
_REQUIRED = ("schema", "labels", "sample_rate", "window", "input", "output", "default", "models", "files")
_OBJECTS = {"input", "output", "models", "bodies", "files", "stream", "frontend"}
_OBJECTS |= {"calibration", "quality", "provenance", "dimensions"}


@dataclass(frozen=True)
class Bundle:
    """What `bundle.json` says. `models` is precision -> engine -> file, `files` is file -> SHA-256 in hex.

    `bodies` names, like `models`, the graphs without the front end, which `frontend` describes. They were cut
    from the same models: an app may run either. This runtime takes the body where there is one.

    >>> models, files = {"fp32": {"onnxruntime": "model.onnx"}}, {"model.onnx": "00" * 32}
    >>> bundle = Bundle(labels=("happy", "sad"), default="fp32", models=models, files=files)
    >>> Bundle.from_json(bundle.to_json()) == bundle
    True
    """

    labels: tuple[str, ...]
    default: str  # the precision that the runtime takes when none is asked for
    models: Mapping[str, Mapping[str, str]]
    files: Mapping[str, str]
    sample_rate: int = 16_000  # Hz
    window: float = 3.0  # seconds: what a stream looks at
    input: str = "samples"  # float32 (batch, samples)
    output: str = "probs"  # float32 (batch, len(labels)); without labels `DIMENSIONS`
    dimensions: Mapping[str, tuple[float, float]] = field(
        default_factory=dict
    )  # beside the emotions, such as arousal, each with its range
    stream: Settings = field(default_factory=Settings)
    bodies: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    frontend: FrontEnd = field(default_factory=FrontEnd)
    gated: bool = False  # graphs that take samples say beside the answer which frames are speech
    speaker: str | None = None  # file of the head for known speakers, see `mifuse_runtime.speaker`
    calibration: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def answers(self) -> int:
        """Numbers of an answer: C probabilities, then V dimensions."""
        return len(self.labels) + len(self.dimensions)

    @property
    def shares(self) -> dict[str, float] | None:
        """Class shares (label -> share) that the model's answers assume; None: all alike."""
        found = self.provenance.get("shares")
        if not isinstance(found, Mapping) or not all(isinstance(found.get(n), float) for n in self.labels):
            return None
        return {name: found[name] for name in self.labels} or None

    @property
    def demo(self) -> bool:
        """Whether the model was trained on synthetic speech, as every prediction of it then says."""
        return self.provenance.get("demo") is True

    def to_json(self) -> str:
        """The text of `bundle.json`, keys in a fixed order."""
        content: dict[str, Any] = {"schema": SCHEMA}
        content |= {f.name: getattr(self, f.name) for f in fields(self)}
        content["input"] = {"name": self.input, "dtype": "float32", "shape": ["batch", "samples"]}
        size = len(self.labels or self.dimensions)
        content["output"] = {"name": self.output, "dtype": "float32", "shape": ["batch", size]}
        content |= {"stream": asdict(self.stream), "frontend": asdict(self.frontend)}
        if not self.bodies:  # as runtimes that know none read it
            del content["bodies"], content["frontend"]
        for key in ("dimensions", "gated", "speaker"):
            if not content[key]:
                del content[key]
        return json.dumps(content, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str | Path = NAME) -> Bundle:
        """Check and read the text of `bundle.json`.

        Raises:
            BundleError: not JSON, another schema, unknown or absent keys, wrong values; `where` is named.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{where} is not JSON ({error}): export the bundle again") from error
        _check_keys(content, where)
        values = {key: value for key, value in content.items() if key != "schema"}
        try:
            values["labels"] = tuple(content["labels"])
            values["stream"] = Settings(**content.get("stream", {}))
            values["frontend"] = FrontEnd(**content.get("frontend", {}))
            values["dimensions"] = {name: tuple(ends) for name, ends in content.get("dimensions", {}).items()}
            values["input"], values["output"] = content["input"]["name"], content["output"]["name"]
            bundle = cls(**values)
            problem = next(bundle._problems(), None)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            problem = f"a value has the wrong type ({error})"
        if problem:
            raise BundleError(f"{where}: {problem}; export the bundle again")
        return bundle

    def _problems(self) -> Iterator[str]:
        """What is wrong with the values."""
        yield from problems("stream", self.stream)
        yield from problems("frontend", self.frontend)
        if self.dimensions:
            from mifuse_runtime import dimensions

            yield from dimensions.problems(self.dimensions)
        if self.frontend.low >= self.frontend.high:
            yield f"frontend goes from {self.frontend.low} to {self.frontend.high} Hz"
        graphs = [*self.models.values(), *self.bodies.values()]
        engines = {engine for models in graphs for engine in models}
        for name in (*self.labels, *self.files, *self.models, *self.bodies, *engines):
            # Names go to terminals: no control characters.
            if not isinstance(name, str) or not name.isprintable():
                yield f"{name!r} is not a name"
        few = len(self.labels) < 2 and not (self.dimensions and not self.labels)
        if few or len(set(self.labels)) != len(self.labels) or "" in self.labels:
            yield f"labels are {list(self.labels)}, two or more different names expected"
        if (self.output == DIMENSIONS) != (not self.labels):
            yield f"the output is {self.output!r} of {len(self.labels)} labels"
        if len(self.labels) > MAX_NAMES or len(self.files) > MAX_NAMES:
            yield f"{len(self.labels)} labels and {len(self.files)} files, {MAX_NAMES} at most expected"
        if both := sorted(set(self.labels) & set(self.dimensions)):
            yield f"{both[0]!r} is a label and a dimension"
        if {NO_SPEECH, NOT_SURE} & set(self.labels):
            yield f"the labels {NO_SPEECH!r} and {NOT_SURE!r} are the runtime's own"
        if type(self.sample_rate) is not int or not 1000 <= self.sample_rate <= 384_000:
            yield f"sample_rate is {self.sample_rate!r}, 1000 to 384000 Hz expected"
        if not isinstance(self.gated, bool):
            yield f"gated is {self.gated!r}, true or false expected"
        if isinstance(self.window, bool) or not 0.1 <= self.window <= 60:
            yield f"window is {self.window!r}, 0.1 to 60 seconds expected"
        yield from self._file_problems(name for models in graphs for name in models.values())

    def _file_problems(self, graphs: Iterable[str]) -> Iterator[str]:
        if self.default not in self.models:
            yield f"the default precision {self.default!r} is not among the models ({', '.join(self.models)})"
        for name, digest in self.files.items():
            if _climbs(name):
                yield f"the file name {name!r} leaves the bundle's folder"
            if len(bytes.fromhex(digest)) != 32:
                yield f"{name} has {digest!r} where a SHA-256 in hex belongs"
        if self.speaker is not None and self.speaker not in self.files:
            yield f"the file {self.speaker!r} of the head for known speakers has no SHA-256 in files"
        for name in graphs:
            for part in (
                name,
                *([name[:-4] + ".bin"] if name.endswith(".xml") else []),
            ):  # OpenVINO's weights
                if part not in self.files:
                    yield f"the model file {part!r} has no SHA-256 in files"

    def model(self, engine: str, precision: str | None = None) -> str:
        """File name of a model; `precision` None is the bundle's default.

        Raises:
            BundleError: the bundle has no such model.
        """
        precision = precision or self.default
        name = self.models.get(precision, {}).get(engine)
        if name is None:
            have = ", ".join(f"{p} for {e}" for p, engines in self.models.items() for e in engines)
            raise BundleError(f"the bundle has no {precision} model for {engine}: it has {have}")
        return name

    def body(self, engine: str, precision: str | None = None) -> str | None:
        """File name of that model's body, if the bundle has one."""
        return self.bodies.get(precision or self.default, {}).get(engine)


def load(folder: str | Path) -> Bundle:
    """Read `bundle.json` and check every file that it names.

    Raises:
        BundleError: no bundle, a changed or missing file, a newer schema, unknown or absent keys.
    """
    folder = Path(folder)
    where = folder / NAME
    try:
        if not where.is_file():
            raise BundleError(f"{folder} is not a bundle: it has no {NAME}; make one with `mifuse export`")
        with where.open("rb") as file:
            text = file.read(MAX_JSON + 1)
        if len(text) > MAX_JSON:
            raise BundleError(f"{where} is larger than {MAX_JSON} bytes: this is not a {NAME}")
        bundle = Bundle.from_json(text, where)
        for name, digest in bundle.files.items():
            if not (folder / name).is_file():
                raise BundleError(f"{folder / name} is missing: copy the whole bundle again")
            if (folder / name).stat().st_size > MAX_FILE:
                raise BundleError(f"{folder / name} is larger than {MAX_FILE} bytes: this is no student")
            _compare(folder / name, sha256(folder / name), digest)
    except OSError as error:
        raise BundleError(f"{error.filename or folder} cannot be read ({error.strerror or error})") from error
    return bundle


def read(folder: Path, bundle: Bundle, name: str) -> bytes:
    """The content of a file of the bundle, if it is as exported: what is checked is what is used.

    Raises:
        BundleError: it cannot be read, or its SHA-256 differs.
    """
    try:
        with (folder / name).open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise BundleError(f"{folder / name} cannot be read ({error.strerror or error})") from error
    digest = _digest()
    digest.update(content)
    _compare(folder / name, str(digest.hexdigest()), bundle.files[name])
    return content


def _compare(path: Path, found: str, digest: str) -> None:
    if found != digest.lower():
        raise BundleError(f"{path} is not as exported (SHA-256 differs): copy the bundle again")


def _digest() -> Any:
    # CPython's own, of 3.12 on and before: `hashlib` loads OpenSSL, 3.4 MB that nothing else here needs.
    where = next((name for name in ("_sha2", "_sha256") if importlib.util.find_spec(name)), "hashlib")
    return importlib.import_module(where).sha256()


def sha256(path: str | Path) -> str:
    """SHA-256 of a file in hex."""
    digest = _digest()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return str(digest.hexdigest())


def _climbs(name: str) -> bool:
    # Symbolic links are allowed: model hubs store files that way, and the hash vouches for the content.
    windows = PureWindowsPath(name)
    return bool(not name or windows.anchor or "\\" in name or ".." in PurePosixPath(name).parts)


def _check_keys(content: Any, where: str | Path) -> None:
    if not isinstance(content, dict):
        raise BundleError(f"{where} is not a JSON object: export the bundle again")
    schema = content.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise BundleError(f"{where} has schema {schema}, this runtime reads {SCHEMA}: upgrade mifuse-runtime")
    for key in _REQUIRED:
        if key not in content:
            raise BundleError(f"{where} has no {key!r}: export the bundle again")
    if schema != SCHEMA or isinstance(schema, bool):
        raise BundleError(
            f"{where} has schema {schema!r}, this runtime reads {SCHEMA}: export the bundle again"
        )
    for key in sorted(_OBJECTS):
        if not isinstance(content.get(key, {}), dict):
            raise BundleError(f"{where}: {key} is not a JSON object; export the bundle again")
    _refuse_unknown(content, ["schema", *(f.name for f in fields(Bundle))], where)
    for key, section in (("stream", Settings), ("frontend", FrontEnd)):
        _refuse_unknown(content.get(key, {}), [f.name for f in fields(section)], where)


def _refuse_unknown(content: Mapping[str, Any], known: list[str], where: str | Path) -> None:
    for key in content:
        if key not in known:
            import difflib

            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise BundleError(f"{where} has an unknown key {key!r}: {hint}")
