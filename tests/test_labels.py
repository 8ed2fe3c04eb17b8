"""Any set of labels: named, renamed, mapped, or refused in one line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mifuse.clips.labels import LABELS, MOST, Naming, folded, known_aliases, naming
from mifuse.clips.manifest import label_set, read_manifest
from mifuse.errors import DrawsError, ManifestError, MifuseError, TrainingError
from mifuse.models.classifier import train_classifier
from mifuse.teachers.draws import draws_labels, load_draws, summarise
from mifuse.teachers.opening import OptionError, open_teacher
from mifuse.teachers.prompts import Prompts, describe
from tests.commands import run
from tests.draws_files import line, make_manifest, write_lines

OWN = ("calm", "fear", "frustrated", "happy")


def labelled(folder: Path, *labels: str) -> Path:
    make_manifest(folder, len(labels))
    rows = "".join(f"c{i}.wav,{label}\n" for i, label in enumerate(labels))
    (folder / "target.csv").write_text("path,label\n" + rows, encoding="utf-8")
    return folder / "target.csv"


@pytest.mark.parametrize(
    "word", ["happy", "Joy", "HEUREUX", "feliz", "glücklich", "glu\u0308cklich", "开心", "счастье"]
)
def test_words_of_many_languages(word: str) -> None:
    assert Naming(LABELS).label(word) == "happy"
    assert Naming(("joie", "peur")).label(word) == "joie"


def test_aliases_are_consistent() -> None:
    aliases = known_aliases()
    assert all(folded(alias) == alias for alias in aliases)
    assert all(aliases[emotion] == emotion for emotion in aliases.values())
    text = (Path(__file__).parents[1] / "mifuse/clips/aliases.json").read_text("utf-8")
    said: dict[str, str] = {}
    for emotions in json.loads(text).values():
        for emotion, words in emotions.items():
            assert all(said.setdefault(word, emotion) == emotion for word in words), emotion


@given(st.text())
def test_any_word_is_a_label_or_none(word: str) -> None:
    assert Naming(OWN).label(word) in (*OWN, None)
    assert folded(folded(word)) == folded(word)


def test_excited_is_happy_where_there_is_no_excited() -> None:
    assert Naming(LABELS).label("exc") == "happy"
    assert Naming(("excited", "happy")).label("exc") == "excited"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("happy", "1 labels \\(happy\\): a set has 2 to 32"),
        ("happy,joy", "'happy' and 'joy' are one emotion"),
        ("happy,", "'' cannot be a label"),
        ("happy,a=b", "'a=b' cannot be a label"),
        ("happy,no speech", "'no speech' cannot be a label"),
        (",".join(f"l{i}" for i in range(MOST + 1)), "33 labels"),
    ],
)
def test_sets_that_are_none(text: str, message: str) -> None:
    with pytest.raises(MifuseError, match=message) as caught:
        naming(text)
    assert "\n" not in str(caught.value)


def test_one_order_whatever_is_written() -> None:
    assert naming("happy, Frustrated,calm,fear").labels == OWN


def test_a_file_of_aliases(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"calm": ["OK", "joy"]}')
    assert naming(aliases=file).over(OWN).label("ok") == "calm"
    assert naming(aliases=file).over(OWN).label("Joy") == "calm"  # one's own come first
    for content, word in (
        ("{", "not JSON"),
        ("[]", "write {"),
        ('{"a": ["x"], "b": ["x"]}', "stands for 'a' and 'b'"),
    ):
        file.write_text(content)
        with pytest.raises(MifuseError, match=word):
            naming(aliases=file)
    with pytest.raises(MifuseError, match="--aliases"):
        naming(aliases=tmp_path / "absent.json")


def test_a_manifest_says_its_set(tmp_path: Path) -> None:
    own = read_manifest(labelled(tmp_path / "own", "Joy", "frustration", "calm", "afraid"))
    assert own.labels == OWN
    four = read_manifest(labelled(tmp_path / "four", "anger", "exc", "neu"))
    assert four.labels == ("angry", "happy", "neutral")
    assert label_set(four, Naming()) == LABELS  # nothing says otherwise
    assert label_set(own, Naming()) == OWN
    assert label_set(own, naming("a,b")) == ("a", "b")
    with pytest.raises(ManifestError, match=r"1 labels \(bored\).*; --labels says what to ask for"):
        label_set(read_manifest(labelled(tmp_path / "one", "bored"), None), Naming())


def test_unknown_labels_have_counts_and_the_nearest(tmp_path: Path) -> None:
    path = labelled(tmp_path, "hapy", "sad", "hapy", "bored", "anger")
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, LABELS)
    said = str(caught.value)
    assert (
        "'hapy' (2 rows, did you mean happy?), 'bored' (1 row)" in said
        and "angry, happy, neutral, sad" in said
    )
    mapped = read_manifest(path, Naming(LABELS, renamed=naming(mapping=["hapy=happy,bored="]).renamed))
    assert Counter(clip.label for clip in mapped.clips) == {"happy": 2, "sad": 1, "angry": 1}
    with pytest.raises(ManifestError, match="leaves out every row"):
        read_manifest(labelled(tmp_path / "b", "bored"), Naming(LABELS, renamed={"bored": ""}))


def test_train_takes_the_set_of_the_manifest_or_says_what_is_wrong(tmp_path: Path) -> None:
    path = labelled(tmp_path, "calm", "calm")
    with pytest.raises(TrainingError, match="2 labelled clips of 1 classes"):
        train_classifier(read_manifest(path).clips)
    with pytest.raises(TrainingError, match="1 clips are labelled 'sad': the labels are calm, happy"):
        train_classifier(
            read_manifest(labelled(tmp_path / "b", "sad", "calm")).clips, labels=("calm", "happy")
        )
    assert "unknown label 'calm' (2 rows)" in run(
        "train", path, "--labels", "sad,happy", "-o", tmp_path / "s", code=1
    )
    assert "--map 'x': write OLD=NEW" in run("train", path, "--map", "x", "-o", tmp_path / "s", code=2)


def test_prepare_takes_any_emotions(tmp_path: Path) -> None:
    for actor in (1, 2):
        for code in range(1, 9):
            name = tmp_path / "r" / f"03-01-{code:02}-01-01-01-{actor:02}.wav"
            name.parent.mkdir(exist_ok=True)
            name.write_bytes(b"")
    out = tmp_path / "r" / "m.csv"
    run("prepare", tmp_path / "r", "-o", out, "--labels", "all")
    eight = ("angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprise")
    assert read_manifest(out).labels == eight
    six = ("angry", "fear", "happy", "neutral", "sad", "surprise")
    (tmp_path / "n").mkdir()
    for word in ("anger", "fear", "happiness", "neutral", "sadness", "surprised"):  # as nEMO names them
        for speaker in ("EB0", "WR0"):
            (tmp_path / "n" / f"{speaker}_{word}_1.wav").write_bytes(b"")
    run("prepare", tmp_path / "n", "-o", tmp_path / "n.csv", "--labels", "all")
    assert read_manifest(tmp_path / "n.csv").labels == six and len(read_manifest(tmp_path / "n.csv")) == 12
    run("prepare", tmp_path / "r", "-o", out, "--map", "calm=calm", "--force")
    assert read_manifest(out).labels == ("angry", "calm", "happy", "neutral", "sad")
    run("prepare", tmp_path / "r", "-o", out, "--labels", "colère,joie", "--force")
    assert read_manifest(out, labels=None).labels == ("colère", "joie")
    for word in ("frustriert", "ruhig"):
        (tmp_path / "f" / word).mkdir(parents=True)
        (tmp_path / "f" / word / "a.wav").write_bytes(b"")
    assert "frustrated" in run(
        "prepare", tmp_path / "f", "-o", tmp_path / "f/m.csv", "--labels", "calm,frustrated"
    )


# Draws


def draws(folder: Path, *probs: dict[str, float] | str) -> Path:
    folder.mkdir(exist_ok=True)
    rows = [
        line(0, k, probs=None, label=one) if isinstance(one, str) else line(0, k, probs=one)
        for k, one in enumerate(probs)
    ]
    return write_lines(folder / "d.jsonl", rows)


def test_draws_over_a_superset_are_mapped_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = make_manifest(tmp_path, 1).clips
    file = draws(
        tmp_path,
        {"happy": 0.4, "sad": 0.1, "Angst": 0.5},
        {"happy": 0.25, "sad": 0.75, "fear": 0.0},
        {"fear": 1.0},
        {"sad": 1.0},
    )
    found = load_draws(file, clips, ("happy", "sad"))[:, 0]
    assert found[:2] == pytest.approx(np.array([[0.8, 0.2], [0.25, 0.75]]))
    assert found[2] == pytest.approx(0.5) and found[3, 1] > 0.99
    assert "no labels here: Angst, fear; left out with 37.5 % of the probability" in caplog.text
    assert "1 of 4 draws say nothing else" in caplog.text
    assert load_draws(file, clips, Naming(("happy", "sad"), renamed={"angst": "sad"}))[
        0, 0, 1
    ] == pytest.approx(0.6)


def test_votes_are_draws(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = make_manifest(tmp_path, 1).clips
    file = draws(tmp_path, "Joy", "happy", "calm", "fear")
    assert load_draws(file, clips, OWN).mean(axis=0)[0] == pytest.approx([0.25, 0.25, 0.0, 0.5], abs=0.002)
    assert "no draw votes for frustrated" in caplog.text
    assert draws_labels(file) == ("calm", "fear", "happy")
    (summary,) = summarise(file)
    assert summary.prior["happy"] == pytest.approx(0.5, abs=0.01)


def test_sets_that_differ_are_both_said(tmp_path: Path) -> None:
    clips = make_manifest(tmp_path, 1).clips
    file = draws(tmp_path, {"happy": 0.5, "sad": 0.5})
    with pytest.raises(
        DrawsError, match=r"draws are over happy, sad, expected calm, fear, .*: none says calm, fear"
    ):
        load_draws(file, clips, OWN)
    with pytest.raises(DrawsError, match="line 1: a repeated label 'happy'"):
        load_draws(draws(tmp_path, {"joy": 0.5, "happy": 0.5}), clips)


def test_a_replay_does_not_mind_what_clips_are_labelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIFUSE_CACHE", str(tmp_path / "cache"))
    path, file = labelled(tmp_path, "hapy"), draws(tmp_path, {"calm": 0.5, "fear": 0.5})
    words = ("label", path, "--teacher", f"replay:{file}", "--store", tmp_path / "d.db", "--json")
    assert json.loads(run(*words))["added"] == 1
    assert draws_labels(tmp_path / "d.db") == ("calm", "fear")


# Questions


def test_questions_name_any_set_and_say_what_it_means(tmp_path: Path) -> None:
    meant = describe(["Frustration=annoyed,  impatient.", "calm=at ease"], OWN)
    prompts = Prompts(OWN, descriptions=meant)
    text = prompts.get(0).text
    assert "By frustrated is meant: annoyed, impatient. By" not in text and "annoyed, impatient." in text
    assert set(prompts.get(1).schema()["required"]) == set(OWN)
    plain = Prompts(OWN)
    assert plain.hash({}) != prompts.hash({}) and "meant" not in plain.get(0).text
    for wrong in ("sad=x", "calm", "calm=", "calm=" + "x" * 300):
        with pytest.raises(MifuseError, match="--describe"):
            describe([wrong], OWN)
    with pytest.raises(OptionError, match="replay asks nothing"):
        open_teacher("replay", None, tmp_path / "m.csv", [], None, descriptions=["happy=x"])  # type: ignore[arg-type]


def test_the_hash_of_the_four_is_what_it_was() -> None:
    """Draws that were bought before are not bought again."""
    assert Prompts().hash({"temperature": 1.0})[:12] == "35367ac1fa77"


@pytest.mark.parametrize("count", [2, 8, 32])
def test_dry_run_shows_the_question(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIFUSE_CACHE", str(tmp_path / "cache"))
    from tests.draws_files import make_speech

    make_speech(tmp_path, 2)
    labels = ",".join(f"feeling{i:02}" for i in range(count))
    said = json.loads(
        run(
            "label", tmp_path / "target.csv", "--teacher", "openai", "--model", "m", "--price", "1,1",
            "--base-url", "http://127.0.0.1:9/v1", "--store", tmp_path / "d.db", "--draws", 1, "--dry-run",
            "--json", "--labels", labels, "--describe", "feeling01=odd",
        )
    )  # fmt: skip
    assert said["labels"].replace(" ", "") == labels
    assert "By feeling01 is meant: odd." in said["question"] and f"feeling{count - 1:02}" in said["question"]
    assert said["tokens_at_most"]["output"] == 2 * (300 + 30 * max(0, count - 8))
