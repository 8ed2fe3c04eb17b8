"""The page in a real headless Chromium: recordings, the microphone, bundles; nothing leaves it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mifuse.demo.synth import DOMAINS, make_speaker, synthesise
from mifuse_runtime import Recognizer, read_audio
from tests.browser import WEB, Page, needs_browser, served
from tests.bundles import LABELS, expected, make_bundle, speech, tone

ROOT = Path(__file__).resolve().parent.parent
# Another folder than tmp_path for the pictures of the guide: MIFUSE_PICTURES=docs/pictures
PICTURES = os.environ.get("MIFUSE_PICTURES")

pytestmark = needs_browser


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle, recordings, and what the microphone records."""
    folder = tmp_path_factory.mktemp("page")
    make_bundle(folder / "bundle")
    soundfile.write(folder / "microphone.wav", tone(4.0), 16_000)
    return folder


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    with served(place) as address:
        yield address


@pytest.fixture(scope="module")
def browser(place: Path) -> Iterator[Page]:
    with Page(place / "profile", plays=place / "microphone.wav") as page:
        yield page


@pytest.fixture
def page(browser: Page, address: str) -> Iterator[Page]:
    """The page with its bundle loaded; afterwards it must have made no error and asked nobody else."""
    browser.errors.clear()
    browser.requests.clear()
    browser.open(address)
    browser.until(said("loaded in"))
    yield browser
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith((address, "data:", "blob:"))] == []


def said(text: str) -> str:
    return f"document.querySelector('#message')?.textContent.includes({text!r})"


def rows(page: Page) -> list[list[str]]:
    """The table, first window first."""
    code = (
        "Array.from(document.querySelectorAll('#rows tr'), (r) => Array.from(r.cells, (c) => c.textContent))"
    )
    return list(reversed(page.run(code)))


def check_rows(found: list[list[str]], recognizer: Recognizer, samples: np.ndarray) -> None:
    stream = recognizer.stream(hop=0.25)
    wanted = stream.feed(samples) + stream.close()
    assert [row[:3] for row in found] == [[f"{p.start:.2f}", f"{p.end:.2f}", p.state] for p in wanted]
    for row, prediction in zip(found, wanted, strict=True):
        assert [float(text) for text in row[3:]] == pytest.approx(list(prediction.scores.values()), abs=1e-3)


@pytest.mark.parametrize(("suffix", "rate"), [("wav", 16_000), ("wav", 44_100), ("flac", 48_000)])
def test_a_recording(page: Page, place: Path, suffix: str, rate: int) -> None:
    recording = place / f"speech-{rate}.{suffix}"
    soundfile.write(recording, speech(4.0, rate), rate)
    recognizer = Recognizer.load(place / "bundle")
    samples = read_audio(recording, 16_000)
    page.choose("#file", recording)
    page.until(said(f"{recording.name}: 4.0 s"))
    check_rows(rows(page), recognizer, samples)
    whole = recognizer.predict(samples)
    assert (
        page.run("document.querySelector('#clip').textContent")
        == f"as a whole: {whole.label} {whole.scores[whole.label]:.2f}"
    )
    assert "ms a window of 3 s" in page.run("document.querySelector('#latency').textContent")
    assert page.run("document.querySelector('#state').textContent") == rows(page)[-1][2]


def test_the_browsers_own_decoder_and_rate_come_close(page: Page, place: Path) -> None:
    # Opus is lossy and the decoder adds its own silence: the same sound, not the same samples.
    recording = place / "tone.ogg"
    soundfile.write(recording, tone(4.0, rate=48_000), 48_000, format="OGG", subtype="OPUS")
    page.choose("#file", recording)
    page.until(said("tone.ogg: 4.0 s"))
    for row in rows(page):
        assert [float(text) for text in row[3:]] == pytest.approx(list(expected(tone(3.0))), abs=0.02)


def test_the_microphone(page: Page) -> None:
    page.run("document.querySelector('#microphone').click()")
    page.until(said("Listening"))
    assert page.run("document.querySelector('#microphone').getAttribute('aria-pressed')") == "true"
    page.until("document.querySelectorAll('#rows tr').length > 2")
    page.run("document.querySelector('#microphone').click()")
    page.until("document.querySelector('#microphone').getAttribute('aria-pressed') === 'false'")
    found = rows(page)
    count = len(found)
    assert [float(row[0]) for row in found[:3]] == [0, 0.25, 0.5]
    for row in found[1:3]:  # the first may hold the start of the device
        # The fake device plays the file at another rate and in a loop: a click each 4 s, levels as they are.
        assert [float(text) for text in row[3:]] == pytest.approx(list(expected(tone(3.0))), abs=0.03)
    assert len(rows(page)) == count, "it goes on after it was stopped"


def test_the_microphones_channels(page: Page) -> None:
    for choice in ("0", "each"):
        page.run(f"document.querySelector('#channel').value = '{choice}'")
        page.run("document.querySelector('#microphone').click()")
        page.until("document.querySelector('#microphone').getAttribute('aria-pressed') === 'true'")
        page.until("document.querySelectorAll('#rows tr').length > 3")
        page.run("document.querySelector('#microphone').click()")
        page.until("document.querySelector('#microphone').getAttribute('aria-pressed') === 'false'")
        starts = [float(row[0]) for row in rows(page)]
        # The fake device has one channel or two, by the browser's version; each has a prediction of its own.
        tracks = page.run("document.querySelector('#track').clientHeight / 18")
        assert tracks in ((1,) if choice == "0" else (1, 2))
        assert starts[: 2 * tracks] == [0] * tracks + [0.25] * tracks
    page.run("document.querySelector('#channel').value = 'mix'")


def test_emotions_left_out_and_added_up(page: Page, place: Path) -> None:
    recording = place / "groups.wav"
    soundfile.write(recording, speech(3.5), 16_000)
    page.choose("#file", recording)
    page.until(said("groups.wav: 3.5 s"))
    whole = Recognizer.load(place / "bundle")
    field = "document.querySelector('#groups')"
    show = f"{field}.value = {{!r}}; {field}.dispatchEvent(new Event('change'))"
    for text, wanted in (
        (
            "neutral, low = sad+angry",
            whole.subset(["neutral", "sad", "angry"]).grouped({"low": ["sad", "angry"]}),
        ),
        ("low=sad+angry", whole.grouped({"low": ["sad", "angry"]})),
        ("", whole),
    ):
        page.run("document.querySelector('#message').textContent = ''")
        page.run(show.format(text))
        page.until(said("groups.wav: 3.5 s"))
        check_rows(rows(page), wanted, read_audio(recording))
    page.run(show.format("low=bored"))
    page.until(said("group low: no emotion 'bored' here"))
    page.run(show.format(""))
    page.until(said("groups.wav: 3.5 s"))


def test_a_bundle_of_the_users_and_a_broken_one(page: Page, place: Path) -> None:
    chosen = make_bundle(place / "chosen", labels=("calm", "tense"), precisions=("fp32", "int8"))
    page.choose("#folder", chosen)
    page.until(said("chosen: int8, loaded in"))
    assert page.run("document.querySelector('#scores').innerText").split() == ["calm", "-", "tense", "-"]
    with (chosen / "model.int8.onnx").open("ab") as file:
        file.write(b"x")
    page.choose("#folder", chosen)
    page.until(said("model.int8.onnx is not as exported"))
    (place / "text.wav").write_text("no audio")
    page.choose("#file", place / "text.wav")
    page.until(said("not an audio file that can be read"))


def test_the_page_of_the_guide(browser: Page, address: str, place: Path) -> None:
    shutil.copy(ROOT / "docs" / "examples" / "page.html", place)
    soundfile.write(place / "a.wav", speech(2.0), 16_000)
    recognizer = Recognizer.load(place / "bundle")
    browser.errors.clear()
    browser.open(f"{address}page.html")
    browser.until("Boolean(document.querySelector('button')?.onclick)")
    browser.choose("input", place / "a.wav")
    shown = browser.until("document.querySelector('output').value")
    wanted = recognizer.predict(speech(2.0))
    assert shown == f"{wanted.label} {wanted.scores[wanted.label]:.2f}"
    browser.run("document.querySelector('button').click()")
    browser.until(f"document.querySelector('output').value !== {shown!r}")
    assert browser.run("document.querySelector('output').value") == recognizer.predict(tone(3.0)).label
    assert browser.errors == []


def test_without_a_bundle_it_asks_for_one(browser: Page, address: str) -> None:
    browser.open(f"{address}?bundle=nowhere/")
    browser.until(said("404"))
    browser.until(said("Choose a bundle."))
    assert browser.run("document.querySelector('#file').disabled")


def test_without_any_bundle_it_opens_with_the_demo(browser: Page, tmp_path: Path) -> None:
    with served(tmp_path) as elsewhere:
        browser.open(elsewhere)
        browser.until(said("demo/bundle/: int8, loaded in"))
        assert browser.run("document.querySelector('#demo').checkVisibility()")
        browser.run("document.querySelector('#example').click()")
        browser.until(said("call.wav: 15.2 s"))
        states = [row[2] for row in rows(browser)]
    assert {"sad", "angry"} <= set(states)


def test_nothing_can_leave(page: Page) -> None:
    elsewhere = "http://127.0.0.1:9/"
    sent = f"fetch('{elsewhere}', {{method: 'POST', body: 'x'}}).then(() => 'sent', (error) => error.name)"
    assert page.run(sent) == "TypeError"
    image = f"Object.assign(new Image(), {{onerror: () => done('refused'), src: '{elsewhere}'}})"
    assert page.run(f"new Promise((done) => {image})") == "refused"
    for kind in ("connect-src", "img-src"):
        assert [e for e in page.errors if "Content Security Policy" in e and kind in e], page.errors
    page.errors.clear()
    page.requests[:] = [url for url in page.requests if not url.startswith(elsewhere)]


def test_every_control_has_a_name(page: Page) -> None:
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    names: dict[str, list[str]] = {}
    for node in tree:
        if not node.get("ignored"):
            names.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    assert names["heading"] == ["mifuse"]
    controls = names["button"]
    assert {"Open a recording", "Use the microphone", "Choose a bundle"} <= {
        name.split(":")[0].strip() for name in controls
    }
    assert all(names["image"])
    assert page.run("document.documentElement.lang") == "en"
    for part in ("#demo", "#example"):  # of the ready bundle alone
        assert not page.run(f"document.querySelector('{part}').checkVisibility()")


def test_it_fits_a_phone_and_has_its_picture_taken(page: Page, place: Path, tmp_path: Path) -> None:
    bundle = make_bundle(place / "short windows")
    content = json.loads((bundle / "bundle.json").read_text()) | {"window": 1.0}
    (bundle / "bundle.json").write_text(json.dumps(content))
    page.choose("#folder", bundle)
    page.until(said("short windows: fp32"))
    rng = np.random.default_rng(3)
    speaker = make_speaker(DOMAINS["studio"], rng)
    moods = [synthesise(label, speaker, DOMAINS["studio"], rng, 3.0) for label in LABELS]
    soundfile.write(place / "synthetic.wav", np.concatenate(moods), 16_000)
    page.choose("#file", place / "synthetic.wav")
    page.until(said("synthetic.wav: 12.0 s"))
    pictures = {"web.png": (960, 710, 1.0), "web-phone.png": (390, 780, 1.0)}
    for name, (width, height, scale) in pictures.items():
        page.picture(tmp_path / name, width, height, scale)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert page.run("document.documentElement.scrollWidth") <= width
        if PICTURES:
            shutil.copy(tmp_path / name, ROOT / PICTURES / name)


def test_a_call_has_a_track_for_each_channel(page: Page, place: Path, tmp_path: Path) -> None:
    page.choose("#folder", WEB / "demo" / "bundle")  # one that was trained on such voices
    page.until(said("bundle: int8"))
    rng = np.random.default_rng(4)
    sides = []
    for labels in (("happy", "neutral"), ("angry", "sad")):
        speaker, quiet = make_speaker(DOMAINS["studio"], rng), np.zeros(4 * 16_000)
        turns = [synthesise(label, speaker, DOMAINS["studio"], rng, 4.0) for label in labels]
        order = (turns[0], quiet, turns[1], quiet) if not sides else (quiet, turns[0], quiet, turns[1])
        sides.append(np.concatenate(order))
    soundfile.write(place / "call.wav", np.stack(sides, axis=1), 16_000)
    page.run("document.querySelector('#channel').value = 'each'")
    page.choose("#file", place / "call.wav")
    page.until(said("call.wav: 16.0 s"))
    page.until("document.querySelector('#track').clientHeight === 36")
    page.until("document.querySelector('#clip').textContent.split(',').length === 2")
    # Of each row: where it is coloured; the two sides of a call take turns.
    script = """new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
      const track = document.querySelector('#track');
      const [pen, scale] = [track.getContext('2d'), track.width / track.clientWidth];
      done([9, 27].map((y) => [2, 6, 10, 14].map((second) => {
        const x = (second / 16) * (track.clientWidth - 64);
        return pen.getImageData(x * scale, y * scale, 1, 1).data[3] > 0;
      })));
    })))"""
    first, second = page.run(script)
    assert first[0] and first[2] and second[1] and second[3]
    page.picture(tmp_path / "call.png", 960, 860, 1.0)
    if PICTURES:
        shutil.copy(tmp_path / "call.png", ROOT / PICTURES / "web-call.png")
    page.run("document.querySelector('#channel').value = 'mix'")
