"""The ready bundle of `runtime/demo` and its call, made anew: for apps that have none yet.

    python -m mifuse.demo.ready runtime/demo/mifuse_demo

Everything is synthetic, and the bundle says so. The same machine makes the same bytes; another CPU rounds
otherwise while it trains, so its student is another one.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from mifuse.clips.audio import AudioCache
from mifuse.clips.labels import LABELS
from mifuse.demo.demo import DemoConfig, build
from mifuse.demo.synth import DOMAINS, RATE, make_speaker, synthesise
from mifuse_runtime import bundle as bundles

# Enough for a student that knows the synthesiser's emotions well, and no more: it is to be made often.
SIZE = DemoConfig(
    source_speakers=24, target_speakers=28, test_speakers=4, clips_per_speaker=12, draws=4,
    train_steps=250, adapt_steps=250,
)  # fmt: skip
PAUSE, TURN = 0.8, 3.0  # seconds between turns, and of each
TELEPHONE = 8_000  # Hz; mu-law, as calls are recorded: 14 s are 110 kB
# Seed of the caller, whom no clip of the training has. Of twelve callers three have all four turns right,
# as this one, and most others two or three.
VOICE = (7, 1)


def make(folder: Path, config: DemoConfig | None = None) -> Path:
    """Write `folder`/bundle, with int8 models alone, and `folder`/call.wav; returns the bundle.

    Raises:
        MifuseError: a stage fails; what was there is still there then.
    """
    with tempfile.TemporaryDirectory() as work:
        build(Path(work), None, config or SIZE, AudioCache())
        made = light(Path(work) / "bundle", folder / "bundle")
    write_call(folder / "call.wav")
    return made


def light(source: Path, out: Path) -> Path:
    """A copy of a bundle with the models of its default precision alone."""
    from mifuse_export import card
    from mifuse_export.folder import new_folder

    bundle = bundles.load(source)
    models, bodies = (
        {bundle.default: graphs[bundle.default]} if bundle.default in graphs else {}
        for graphs in (bundle.models, bundle.bodies)
    )
    kept = {name for graphs in (models, bodies) for names in graphs.values() for name in names.values()}
    kept |= {bundle.speaker} if bundle.speaker else set()
    files = {name: digest for name, digest in bundle.files.items() if name in kept}
    bundle = replace(bundle, models=models, bodies=bodies, files=files)
    with new_folder(out, force=True) as folder:
        for name in files:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(source / name, folder / name)
        (folder / bundles.NAME).write_text(bundle.to_json(), encoding="utf-8")
        (folder / card.NAME).write_text(card.card(folder, bundle), encoding="utf-8")
    return out


def write_call(file: Path) -> None:
    """A caller's four turns, one of each emotion, as a telephone system records them."""
    import soundfile

    from mifuse_runtime.resample import resample

    rng = np.random.default_rng(VOICE)
    speaker, quiet = make_speaker(DOMAINS["phone"], rng), np.zeros(round(PAUSE * RATE))
    turns = [
        synthesise(label, speaker, DOMAINS["phone"], rng, TURN) for label in sorted(LABELS, reverse=True)
    ]
    call = np.concatenate([part for turn in turns for part in (turn, quiet)])
    soundfile.write(file, resample(call.astype(np.float32), RATE, TELEPHONE), TELEPHONE, subtype="ULAW")


def main() -> None:
    """Make both; two minutes on a core."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, help="that gets bundle/ and call.wav")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    made = make(folder)
    sizes = sum(file.stat().st_size for file in made.iterdir())
    sys.stdout.write(f"{made}: {sizes / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
