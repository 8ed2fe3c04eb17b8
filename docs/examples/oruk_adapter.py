import argparse
from pathlib import Path

from oruk_bench.adapters.open_models import ADAPTERS, run_eval
from oruk_bench.core import LABELS, TARGET_SR, norm_label

from mifuse_runtime import MifuseError, Recognizer


def recognizer_of(bundle):
    """A bundle that answers in the classes of the leaderboard; other emotions of it take no part."""
    recognizer = Recognizer.load(bundle)
    classes = {}
    for label in recognizer.labels:
        classes.setdefault(norm_label(label), []).append(label)
    classes.pop(None, None)
    if len(classes) < 2:
        raise MifuseError(
            f"{bundle} knows {', '.join(recognizer.labels)}: fewer than two of {', '.join(LABELS)}"
        )
    known = [label for members in classes.values() for label in members]
    return recognizer.subset(known).grouped(classes)


class MifuseAdapter:
    """What oruk_bench asks of an entrant: a place in LABELS for each clip."""

    def __init__(self, cfg, device):  # the device is the CPU, whatever is said
        self.recognizer = recognizer_of(cfg["model_id"])

    def predict(self, audios):
        found = self.recognizer.predict_batch(audios, TARGET_SR, gate=False)  # every clip counts
        return [LABELS.index(prediction.label) for prediction in found]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Score a bundle on shards of oruk-bench.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("shards", type=Path, help="folder of parquet files")
    parser.add_argument("--out", type=Path, default=Path("bench_results"))
    parser.add_argument("--name", help="of the entry; else that of the folder")
    options = parser.parse_args()
    ADAPTERS["mifuse"] = MifuseAdapter
    try:
        labels = recognizer_of(options.bundle).labels
    except MifuseError as error:
        parser.error(str(error))
    entry = {
        "name": options.name or options.bundle.resolve().name,
        "model_id": str(options.bundle),
        "adapter": "mifuse",
        "supported": sorted(labels, key=LABELS.index),  # scored on their clips alone, too
    }
    run_eval(entry, options.shards, out_dir=options.out)
