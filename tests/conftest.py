"""Shared fixtures. Tests write only under tmp_path, use no network and OMP_NUM_THREADS threads, or one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import mifuse_runtime  # noqa: F401  # before ONNX Runtime, which reports itself otherwise

if TYPE_CHECKING:
    from tests.browser import Ask
    from tests.llm_server import LlmServer

try:
    from hypothesis import settings
except ImportError:  # the runtime's tests also run where only NumPy and ONNX Runtime are
    pass
else:
    # Many properties on small arrays: 40 examples each keep the suite short; a busy machine is no failure,
    # and one commit gives one answer on CI.
    settings.register_profile("mifuse", max_examples=40, deadline=None, derandomize="CI" in os.environ)
    settings.load_profile("mifuse")


@pytest.fixture(scope="session", autouse=True)
def _isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIFUSE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        # Where a shell started the tests in the background Ctrl-C is ignored, and by their children, too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        yield


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    try:
        import torch
    except ImportError:  # the runtime's tests also run where only NumPy and ONNX Runtime are
        return
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Makes the folder of a name in the first process of tests that asks for it; all of them read it."""
    from filelock import FileLock

    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder = shared / f"made-{name}"
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                new = tmp_path_factory.mktemp(name) / "new"
                make(new)
                new.rename(folder)
        return folder

    return made


@pytest.fixture(scope="session")
def known(made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The bundle of `tests.exported`."""
    from tests.exported import export_known

    return made_once("known", export_known)


@pytest.fixture(scope="session")
def ask() -> Iterator[Ask]:
    """Calls functions of web_driver.mjs in a process of Node, which starts slowly."""
    from tests.browser import node

    with node() as call:
        yield call


@pytest.fixture(scope="session")
def corpora() -> Path:
    """Folder of real corpora, from MIFUSE_CORPORA."""
    folder = os.environ.get("MIFUSE_CORPORA")
    if not folder:
        pytest.skip("MIFUSE_CORPORA is not set: tests on real recordings are skipped")
    return Path(folder)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LlmServer]:
    """A LALM for the commands of a page of the docs."""
    from tests.llm_server import LlmServer
    from tests.tutorials import level_decides

    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    with LlmServer(answer=level_decides) as running:
        yield running
