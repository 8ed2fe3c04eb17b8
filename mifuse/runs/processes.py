"""The processes of `accelerate launch`: they train together, and one of them writes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from mifuse.errors import MifuseError

T = TypeVar("T")


def is_main_process() -> bool:
    """Whether this process writes: the only one, or the first of `accelerate launch`."""
    import torch
    from accelerate import PartialState

    # Whoever asks first decides: without cpu=True, CPU processes would not find each other, and after torch's
    # half an hour they give up on one that fuses a million clips.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=7))
    return bool(state.is_main_process)


def on_main_process(action: Callable[[], T]) -> T:
    """Do something in the main process, while the others wait for its result or its failure.

    Raises:
        MifuseError: the action failed in the main process; there, the error is what it was.
    """
    from accelerate.utils import broadcast_object_list

    outcome: list[T | Exception | None] = [None]
    if is_main_process():
        try:
            outcome = [action()]
        except Exception as error:
            broadcast_object_list([MifuseError(str(error))])
            raise
    broadcast_object_list(outcome)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]  # type: ignore[return-value]
