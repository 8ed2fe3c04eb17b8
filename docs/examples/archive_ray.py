import argparse
import csv
import hashlib
import json
import os
import time
import uuid
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or Ray reports its use to its makers
import ray

from mifuse_runtime import AudioError, MifuseError, Recognizer, read_audio

SUFFIXES = {".wav", ".flac", ".ogg", ".mp3"}


class Recognise:
    """An actor: loads one recogniser, then answers shard after shard."""

    def __init__(self, bundle, root, answers, channels):
        self.recognizer = Recognizer.load(bundle)
        self.root, self.answers, self.channels = root, answers, channels

    def __call__(self, batch):
        for shard, clips in zip(batch["shard"], batch["clips"], strict=True):
            # A name of its own: Ray may give a shard to a second actor while the first still writes.
            part = self.answers / f"{shard}.{uuid.uuid4().hex}.part"
            with part.open("w", encoding="utf-8") as file:
                for clip in json.loads(clips):
                    file.write(json.dumps(self.answer(clip)) + "\n")
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.answers / f"{shard}.jsonl")  # the shard is there whole, or not at all
        return {"clips": [len(json.loads(clips)) for clips in batch["clips"]]}

    def answer(self, clip):
        recognizer, file = self.recognizer, self.root / clip
        try:
            if self.channels:
                sides = {
                    name: recognizer.timeline(read_audio(file, recognizer.sample_rate, channel=name))
                    for name in self.channels
                }
                found = {name: side.to_dict(recognizer.labels) for name, side in sides.items()}
                return {"path": clip, "timelines": found}
            found = recognizer.predict(read_audio(file, recognizer.sample_rate))
        except AudioError as error:
            return {"path": clip, "error": str(error)}
        return {"path": clip, "label": found.label, "scores": found.scores}


def clips_of(archive):
    """The folder that paths are relative to, and the paths: all audio files in it, or those of a manifest."""
    if archive.is_dir():
        files = (path for path in archive.rglob("*") if path.suffix.lower() in SUFFIXES)
        return archive, {path.relative_to(archive).as_posix() for path in files}
    with archive.open(encoding="utf-8", newline="") as file:
        manifest = csv.DictReader(file)
        if "path" not in (manifest.fieldnames or ()):
            raise ValueError(f"{archive} has no column path")
        return archive.parent, {row["path"] for row in manifest}


def shards_of(archive, bundle, answers, size, channels):
    """The folder of the archive, and what is left to do as rows: shards, named by bundle and clips alone."""
    asked = json.dumps(channels).encode() if channels else b""
    model = hashlib.sha256((bundle / "bundle.json").read_bytes() + asked).hexdigest()[:8]
    root, clips = clips_of(archive)
    answers.mkdir(parents=True, exist_ok=True)
    finished = sorted(answers.glob("*.jsonl"))
    if any(not shard.name.startswith(f"{model}-") for shard in finished):
        raise ValueError(f"{answers} holds answers of another bundle or way of asking: name another folder")
    done = {json.loads(line)["path"] for shard in finished for line in shard.open(encoding="utf-8")}
    left = sorted(clips - done)
    rows = []
    for start in range(0, len(left), size):
        text = json.dumps(left[start : start + size])
        rows.append({"shard": f"{model}-{hashlib.sha256(text.encode()).hexdigest()[:16]}", "clips": text})
    return root, rows, len(left)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Emotions of an archive; started again, it goes on.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("archive", type=Path, help="a folder, or a manifest: CSV with the column path")
    parser.add_argument("answers", type=Path, help="folder for shards of JSON lines")
    parser.add_argument("--actors", type=int, default=os.cpu_count(), help="recognisers, a core each")
    parser.add_argument("--timeline", nargs="+", default=(), metavar="CHANNEL", help="mix, or 0 1 of a call")
    parser.add_argument("--clips", type=int, default=256, help="in a shard: what a kill costs each actor")
    options = parser.parse_args()
    channels = [int(name) if name.isdecimal() else name for name in options.timeline]
    bundle, answers = options.bundle.resolve(), options.answers.resolve()  # actors run elsewhere
    try:
        Recognizer.load(bundle)  # a broken bundle is refused here, and not by every actor
        root, rows, left = shards_of(options.archive.resolve(), bundle, answers, options.clips, channels)
    except (OSError, ValueError, MifuseError) as error:
        parser.error(str(error))
    if rows:
        ray.init(include_dashboard=False)  # on this machine, or the cluster at RAY_ADDRESS
        ray.data.DataContext.get_current().enable_progress_bars = False
        work = ray.data.from_items(rows, override_num_blocks=min(len(rows), 1000)).map_batches(
            Recognise,
            fn_constructor_args=(bundle, root, answers, channels),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=options.actors),
        )
        answered, start = 0, time.monotonic()
        for row in work.iter_rows():
            answered += row["clips"]
            rate = answered / (time.monotonic() - start)
            print(f"{answered}/{left} clips, {rate:.0f} a second", flush=True)
    for part in answers.glob("*.part"):  # of runs that were killed
        part.unlink()
