"""How `predict` writes what it found: text, JSON, CSV, RTTM and WebVTT."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from mifuse_runtime.audio import Channel, channel_index
from mifuse_runtime.command.output import say, scored
from mifuse_runtime.command.recordings import Found, as_dict
from mifuse_runtime.decision import Prediction
from mifuse_runtime.recognizer import Recognizer
from mifuse_runtime.shown import quoted
from mifuse_runtime.timeline import UNKNOWN, Timeline

FORMS = ("json", "csv", "rttm", "vtt")  # options; text without


def heading(form: str | None, recognizer: Recognizer) -> None:
    """What comes before the first result."""
    if form == "csv":
        columns = ("path", "label", "state", "confidence", "start", "end", *recognizer.labels, "speech")
        say(_csv_line((*columns, "channel", *recognizer.dimensions)))
    elif form == "vtt":
        say("WEBVTT")


def write(found: Found, form: str | None, recognizer: Recognizer, *, whole: bool) -> None:
    """Print what was found; `whole`: each segment also in the text."""
    if form == "json":
        say(json.dumps({"path": found.path, **as_dict(found, recognizer)}))
        return
    answer = found.answer
    segments = answer.segments if isinstance(answer, Timeline) else (answer,)
    if form == "csv":
        for segment in segments or (_nothing(answer, recognizer),):
            say(_csv_line(_csv_row(found, segment, recognizer)))
    elif form == "rttm":
        number = (channel_index(found.channel) or 0) + 1
        name = Path(found.path).stem.replace(" ", "_")
        for row in segments:
            times = f"{row.start:.3f} {row.end - row.start:.3f}"
            state = row.state.replace(" ", "_")
            say(f"SPEAKER {name} {number} {times} <NA> {state} {UNKNOWN} {row.confidence:.3f} <NA>")
    elif form == "vtt":
        for row in segments:
            say("")
            say(f"{_clock(row.start)} --> {_clock(row.end)}")
            what = f"{row.state} {row.confidence:.2f}" if row.scores else scored(row)
            say(f"<v {_voice(found.channel)}>{what}")
    else:
        _text(found, whole=whole)


def _text(found: Found, *, whole: bool) -> None:
    answer = found.answer
    where = found.path if found.channel == "mix" else f"{found.path} ({_voice(found.channel)})"
    if isinstance(answer, Prediction):
        say(f"{where}: {scored(answer)}")
        return
    shares = ", ".join(f"{100 * share:.0f} % {state}" for state, share in answer.shares.items())
    what = f"{shares} of {answer.speech:.1f} s of speech" if shares else "no speech"
    say(f"{where}: {what} in {answer.duration:.1f} s")
    for row in answer.segments if whole else ():
        state = f"{row.state}; " if row.scores else ""
        say(f"  {row.start:8.2f} {row.end:8.2f} s  {state}{scored(row)}")


def _nothing(answer: Prediction | Timeline, recognizer: Recognizer) -> Prediction:
    return answer.summary(recognizer.labels) if isinstance(answer, Timeline) else answer


def _csv_row(found: Found, row: Prediction, recognizer: Recognizer) -> tuple[object, ...]:
    numbers = (row.confidence, row.start, row.end, *row.scores.values(), row.speech)
    cells = (f"{number:.6g}" for number in numbers)
    dimensions = (f"{row.dimensions[name]:.6g}" if row.dimensions else "" for name in recognizer.dimensions)
    return found.path, row.label, row.state, *cells, found.channel, *dimensions


def _csv_line(values: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([quoted(str(value)) for value in values])
    return text.getvalue()


def _clock(seconds: float) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}.{whole % 1000:03}"


def _voice(channel: Channel) -> str:
    return "mix" if channel == "mix" else f"channel {channel}"
