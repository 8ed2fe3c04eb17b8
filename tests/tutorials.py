"""The commands of a page of the docs, run with a local LALM and few steps: what tutorials' tests share."""

from __future__ import annotations

import re
import shlex
from typing import Any

import numpy as np
from click.testing import CliRunner

from mifuse.cli import main
from mifuse_runtime.__main__ import main as runtime
from tests.llm_server import LlmServer, audio_of

QUICK = {
    "train": ["--size", "xs", "--set", "fit.steps=6"],
    "adapt": [
        *("--size", "xs", "--set", "fit.steps=6", "--set", "classifier_draws=2", "--set", "verdict=false"),
    ],
    "export": ["--format", "onnx"],
}


def level_decides(request: dict[str, Any], labels: list[str]) -> dict[str, float]:
    """A LALM of one rule: the louder, the later in the alphabet, and the higher each number asked for.

    Its draws differ a little.
    """
    level = 20 * np.log10(np.sqrt(np.mean(audio_of(request) ** 2)) + 1e-9)
    order = {label: place for place, label in enumerate(sorted(labels))}
    chance = np.random.default_rng(len(request["messages"][1]["content"][0]["text"]))
    share = float(np.clip((level + 35) / 20 + chance.normal(0, 0.05), 0, 1).round(2))
    scores = np.array([-abs((level + 30) / 2 - order[label]) for label in labels])
    probs = np.exp(scores + chance.normal(0, 0.3, len(labels)))
    asked = re.findall(r'"(\w+)", from ([-.\d]+)[^,]* to ([-.\d]+)', str(request["messages"]))
    numbers = {
        name: low + (high - low) * share for name, low, high in ((n, float(a), float(b)) for n, a, b in asked)
    }
    return dict(zip(labels, (probs / probs.sum()).round(4).tolist(), strict=True)) | numbers


def mifuse(*words: str) -> str:
    done = CliRunner().invoke(main, [*words, *QUICK.get(words[0], [])])
    assert done.exit_code == 0, f"{words}: {done.output}"
    return done.stdout


def follow(block: str, server: LlmServer) -> list[str]:
    """Run the lines of a block of the docs; what each command of `mifuse` printed."""
    said: list[str] = []
    for command in block.replace("\\\n", " ").splitlines():
        words = shlex.split(command.replace("MODEL", "m").replace("URL", f"{server.url}/v1"))
        if words[0] == "mifuse-runtime":
            assert runtime(words[1:]) == 0
        else:
            said.append(mifuse(*words[1:]))
    return said
