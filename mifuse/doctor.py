"""What of this installation works, and what to run when something does not."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Import names (all equal to the names of the distributions); tests hold them equal to setup.cfg.
REQUIREMENTS = {
    "base": ("numpy", "onnxruntime", "click"),
    "train": (
        "torch",
        "scipy",
        "torchaudio",
        "transformers",
        "accelerate",
        "safetensors",
        "huggingface_hub",
        "filelock",
        "soundfile",
        "soxr",
        "matplotlib",
    ),
    "teachers": ("anthropic", "openai"),
    "export": ("onnx", "onnxscript", "onnxruntime", "openvino", "flatbuffers"),
}
# Instructions that make int8 faster than float32; without any of them int8 only saves memory.
INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
CPU_FLAGS = ("avx2", "fma", "avx512f", *INT8_FLAGS)
KEYS = {
    "ANTHROPIC_API_KEY": "teacher anthropic",
    "OPENAI_API_KEY": "teacher openai",
    "HF_TOKEN": "private hf: models",
}
MIN_FREE_GB = 2.0  # decoded audio is 115 MB an hour


@dataclass(frozen=True)
class Check:
    """One finding. `run` is what puts it right; only the status `broken` makes `mifuse doctor` fail."""

    name: str
    status: str  # ok | info | absent (an extra that is not installed) | warning | broken
    detail: str
    run: str | None = None


def diagnose() -> list[Check]:
    """Every check, the base first. Imports happen in a child process, which a broken library may end."""
    failures, gpu = _import_all(sorted({name for names in REQUIREMENTS.values() for name in names}))
    checks = [_python(), *(_requirements(extra, failures) for extra in REQUIREMENTS), _cpu()]
    checks += [Check("gpu", "info", gpu), _cache(), *(_key(name) for name in KEYS)]
    return checks


def fix() -> list[str]:
    """Make torchaudio importable beside a CPU-only torch; the lines to show, none when nothing was to do.

    The wheels of torchaudio on package indexes are linked against CUDA, and its import loads them: beside
    a torch without CUDA it fails. Without its compiled files torchaudio runs as pure Python. mifuse uses
    none of what they speed up (IIR filters, forced alignment, the CTC beam decoder).
    """
    torchaudio = _folder("torchaudio")
    if torchaudio is None or _folder("torch") is None:
        return []
    failures, _ = _import_all(["torch", "torchaudio"])
    if list(failures) != ["torchaudio"]:
        return []
    folder = torchaudio / "lib"
    compiled = sorted(path for path in folder.glob("*") if path.suffix in (".so", ".pyd", ".dylib"))
    for path in compiled:
        path.unlink()
    return [f"removed {path}: linked against CUDA, not used by mifuse" for path in compiled]


def import_and_report(names: Sequence[str]) -> None:
    """In the child: import each, write a JSON line [name, error or null] for it; last ["gpu", text]."""
    for name in names:
        error = None
        try:
            importlib.import_module(name)
        except Exception as reason:  # a broken library raises whatever it likes; the report is the point
            error = f"{type(reason).__name__}: {reason}".splitlines()[0]
        _emit(name, error)
    try:
        gpu = _gpu()
    except Exception as reason:  # a driver that does not fit, a torch that is half there
        gpu = f"not known: {reason}"
    _emit("gpu", gpu)


def _emit(name: str, text: str | None) -> None:
    sys.stdout.write("\n" + json.dumps([name, text]) + "\n")
    sys.stdout.flush()


def _import_all(names: Sequence[str]) -> tuple[dict[str, str], str]:
    """Failures by name, and the GPU, as a child process finds them."""
    present = [name for name in names if _folder(name) is not None]
    code = "import sys; from mifuse.doctor import import_and_report; import_and_report(sys.argv[1:])"
    child = subprocess.run(
        [sys.executable, "-c", code, *present],
        capture_output=True,
        text=True,
        check=False,
        # The child finds mifuse wherever this process did, installed or not.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    seen = dict(json.loads(line) for line in child.stdout.splitlines() if line.startswith('["'))
    failures = {name: error for name, error in seen.items() if error and name != "gpu"}
    if "gpu" not in seen:  # the child died: by the import after the last one that it reported
        culprit = next((name for name in present if name not in seen), "python")
        failures[culprit] = f"the import ends the process (exit {child.returncode})"
    return failures, seen.get("gpu") or "none"


def _folder(name: str) -> Path | None:
    """Where a package lies, found without importing it and without asking what this process has imported."""
    spec = importlib.machinery.PathFinder.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _gpu() -> str:
    torch = sys.modules.get("torch")
    if torch is None:
        return "not known without torch"
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name(0)} (cuda {torch.version.cuda})"
    if torch.backends.mps.is_available():
        return "Apple (mps)"
    return "none: training runs on the CPU" + (
        "; torch is a CPU-only build" if torch.version.cuda is None else ""
    )


def _python() -> Check:
    from mifuse_runtime import __version__

    system = f"{platform.system()} {platform.machine()}"
    return Check("mifuse", "ok", f"mifuse {__version__} · Python {platform.python_version()} · {system}")


def _requirements(extra: str, failures: dict[str, str]) -> Check:
    names = REQUIREMENTS[extra]
    versions = {name: _version(name) for name in names}
    absent = [name for name in names if versions[name] is None]
    broken = {name: failures[name] for name in names if name in failures}
    if broken:
        name, error = next(iter(broken.items()))
        run = _reinstall(name)
        if name == "torchaudio" and list(broken) == [name]:
            run = "mifuse doctor --fix"
        return Check(extra, "broken", f"{name} {versions[name]} does not import: {error}", run)
    if absent and extra != "base" and set(absent) | {"onnxruntime"} >= set(names):
        return Check(extra, "absent", "not installed", _install(extra))
    if absent:
        return Check(extra, "broken", f"missing: {', '.join(absent)}", _install(extra))
    return Check(extra, "ok", ", ".join(f"{name} {versions[name]}" for name in names))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _install(extra: str) -> str:
    return f"{_pip()} '{_source()}'" if extra == "base" else f"{_pip()} '{_source()}[{extra}]'"


def _reinstall(name: str) -> str:
    return f"{_pip()} --force-reinstall --no-deps {name}"


def _pip() -> str:
    checkout = _checkout()
    pins = f" -c {checkout / 'constraints.txt'}" if checkout else ""
    return f"{sys.executable} -m pip install{pins}"


def _source() -> str:
    return str(_checkout() or "mifuse")


def _checkout() -> Path | None:
    """The source tree this runs from, None for an installed wheel."""
    folder = Path(__file__).resolve().parent.parent
    return folder if (folder / "constraints.txt").is_file() else None


def _cpu() -> Check:
    cores = f"{os.cpu_count()} cores"
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return Check("cpu", "info", f"{cores}; instructions not known on this system")
    # x86 calls the line "flags", Arm "Features".
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    words = {word for line in lines if line.startswith(("flags", "Features")) for word in line.split()}
    found = [flag for flag in CPU_FLAGS if flag in words]
    fast = any(flag in words for flag in INT8_FLAGS)
    verdict = "int8 is fast here" if fast else "no int8 dot product: int8 mostly saves memory"
    return Check("cpu", "info", f"{cores}; {' '.join(found) or 'none of ' + ' '.join(CPU_FLAGS)}; {verdict}")


def _cache() -> Check:
    from mifuse.clips.audio import cache_folder

    folder = cache_folder()
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(nearest).free / 1e9
    detail = f"{folder}: {free:.1f} GB free"
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        return Check(
            "cache", "broken", f"{folder} cannot be written", "export MIFUSE_CACHE=/a/folder/you/can/write"
        )
    if free < MIN_FREE_GB:
        return Check("cache", "warning", f"{detail}, little", "export MIFUSE_CACHE=/a/folder/with/room")
    return Check("cache", "ok", detail)


def _key(name: str) -> Check:
    present = "set" if os.environ.get(name) else "not set"
    return Check(name, "info", f"{present} ({KEYS[name]})")
