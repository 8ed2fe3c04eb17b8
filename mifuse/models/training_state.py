"""The state of an unfinished training on disk: written whole, and continued by the same run alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from mifuse.errors import TrainingError
from mifuse.files import whole_file
from mifuse.models.training import Trainer
from mifuse.runs.folder import STATE, writing

Array = NDArray[np.float64]


class TrainingState:
    """Where a run keeps its state, and what must be the same when it is continued.

    Args:
        folder: of the state; None keeps nothing.
        settings: what `load` insists on beside seed and config of the training; JSON-serialisable.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder, settings

    def save(self, trainer: Trainer, arrays: Mapping[str, Array]) -> None:
        """Write the training and some arrays; the file is replaced only when the new one is whole.

        Raises:
            TrainingError: the disk does not take it.
        """
        if self.folder is None or not trainer.accelerator.is_main_process:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"student.{k}": v for k, v in trainer.student.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in trainer.average.state_dict().items()}
        for i, state in trainer.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
        tensors |= {f"arrays.{k}": torch.from_numpy(v) for k, v in arrays.items()}
        meta = {"step": trainer.step, "history": trainer.history, "settings": self._all_settings(trainer)}
        with writing(self.folder), whole_file(self.folder / STATE) as partial:
            save_file({k: v.contiguous() for k, v in tensors.items()}, partial, {"state": json.dumps(meta)})

    def load(self, trainer: Trainer) -> dict[str, Array]:
        """Continue from `save`: the arrays that it was given; none when there is nothing to continue.

        Raises:
            TrainingError: the saved run had other settings, or its state is damaged.
        """
        if self.folder is None or not (self.folder / STATE).exists():
            return {}
        meta, tensors = _read(self.folder / STATE)
        mine, theirs = self._all_settings(trainer), meta["settings"]
        changed = [name for name in mine if mine[name] != theirs.get(name)]
        if changed:
            raise TrainingError(
                f"{self.folder} was started with another {changed[0]}: "
                "resume with the same settings, or start anew with --force"
            )
        parts: dict[str, dict[str, Tensor]] = {"student": {}, "average": {}, "optimizer": {}, "arrays": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        trainer.student.load_state_dict(parts["student"])
        trainer.average.load_state_dict(parts["average"])
        state = trainer.optimizer.state_dict()
        for name, tensor in parts["optimizer"].items():
            index, _, key = name.partition(".")
            state["state"].setdefault(int(index), {})[key] = tensor
        trainer.optimizer.load_state_dict(state)
        trainer.step, trainer.history = meta["step"], meta["history"]
        return {name: tensor.numpy() for name, tensor in parts["arrays"].items()}

    def _all_settings(self, trainer: Trainer) -> dict[str, Any]:
        settings = _flat({"fit": asdict(trainer.config), **self.settings, "seed": trainer.seed})
        return dict(json.loads(json.dumps(settings)))


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as handle:
            meta: dict[str, Any] = json.loads(handle.metadata()["state"])
        return meta, load_file(file)
    except (SafetensorError, KeyError, TypeError) as error:
        raise TrainingError(f"{file} is damaged ({error}): start anew with --force") from error


def digest(parts: Iterable[bytes]) -> str:
    """SHA-256 of an input, for `settings`."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def _flat(group: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in group.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
