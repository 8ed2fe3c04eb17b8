"""Corpora: real names of each, made up as empty files; label files as their documentation shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mifuse.clips.corpora import CORPORA
from mifuse.clips.dimensions import dimension_values
from mifuse.clips.folders import scan
from mifuse.clips.labels import LABELS, Naming
from mifuse.clips.manifest import read_manifest
from mifuse.clips.preparation import prepare
from mifuse.errors import ManifestError

# corpus -> path, label (None: left out), speaker
NAMES = {
    "ravdess": [
        ("Actor_12/03-01-05-02-01-01-12.wav", "angry", "ravdess-12"),
        ("Actor_01/03-01-01-01-02-02-01.wav", "neutral", "ravdess-01"),
        ("Actor_01/03-01-03-01-02-02-01.wav", "happy", "ravdess-01"),
        ("Actor_01/03-01-04-01-02-02-01.wav", "sad", "ravdess-01"),
        ("Actor_01/03-01-02-01-02-02-01.wav", None, "ravdess-01"),  # calm
    ],
    "emodb": [
        ("wav/03a01Wa.wav", "angry", "emodb-03"),
        ("wav/03a01Fa.wav", "happy", "emodb-03"),
        ("wav/16b10Tb.wav", "sad", "emodb-16"),
        ("wav/03a01Nc.wav", "neutral", "emodb-03"),
        ("wav/14a05Aa.wav", None, "emodb-14"),  # Angst: fear
    ],
    "nemo": [
        ("samples/EB0_anger_1.wav", "angry", "nemo-EB0"),
        ("samples/WR0_happiness_90.wav", "happy", "nemo-WR0"),
        ("samples/MP0_sadness_7.wav", "sad", "nemo-MP0"),
        ("samples/MP0_neutral_7.wav", "neutral", "nemo-MP0"),
        ("samples/MP0_surprised_7.wav", None, "nemo-MP0"),
    ],
    "crema-d": [
        ("AudioWAV/1001_DFA_ANG_XX.wav", "angry", "crema-d-1001"),
        ("AudioWAV/1091_IEO_HAP_HI.wav", "happy", "crema-d-1091"),
        ("AudioWAV/1040_ITH_SAD_X.wav", "sad", "crema-d-1040"),
        ("AudioWAV/1001_WSI_NEU_XX.wav", "neutral", "crema-d-1001"),
        ("AudioWAV/1001_WSI_DIS_XX.wav", None, "crema-d-1001"),
    ],
    "urdu": [
        ("Angry/SM1_F10_A010.wav", "angry", "urdu-SM1"),
        ("Happy/SF1_F1_H01.wav", "happy", "urdu-SF1"),
        ("Neutral/SM12_F3_N0100.wav", "neutral", "urdu-SM12"),
        ("Sad/SM27_F1_S09.wav", "sad", "urdu-SM27"),
    ],
    "tess": [
        ("OAF_angry/OAF_back_angry.wav", "angry", "tess-OA"),
        ("YAF_happy/YAF_youth_happy.wav", "happy", "tess-YA"),
        ("OAF_neutral/OA_bite_neutral.wav", "neutral", "tess-OA"),
        ("YAF_sad/YAF_back_sad.wav", "sad", "tess-YA"),
        ("YAF_pleasant_surprised/YAF_back_ps.wav", None, "tess-YA"),
    ],
    "savee": [
        ("AudioData/DC/a01.wav", "angry", "savee-DC"),
        ("AudioData/KL/h15.wav", "happy", "savee-KL"),
        ("ALL/JE_sa07.wav", "sad", "savee-JE"),
        ("ALL/JK_n30.wav", "neutral", "savee-JK"),
        ("AudioData/DC/su02.wav", None, "savee-DC"),
    ],
    "koremo": [
        ("emotional-to-emotional/nea/wav/nea00005.wav", "neutral", "koremo-nea"),
        ("emotional-to-emotional/nea/wav/nea00100.wav", "neutral", "koremo-nea"),
        ("emotional-to-emotional/neb/wav/neb00101.wav", "happy", "koremo-neb"),
        ("plain-to-emotional/ema/wav/ema00203.wav", "sad", "koremo-ema"),  # documented as angry
        ("plain-to-emotional/emh/wav/emh00400.wav", "angry", "koremo-emh"),  # documented as sad
    ],
    "esd": [
        ("0011/Angry/train/0011_000351.wav", "angry", "esd-0011"),
        ("0012/Sad/0012_001051.wav", "sad", "esd-0012"),
        ("0012/Surprise/test/0012_001421.wav", None, "esd-0012"),
    ],
    "casia": [
        ("liuchanhg/angry/201.wav", "angry", "casia-liuchanhg"),
        ("wangzhe/neutral/202.wav", "neutral", "casia-wangzhe"),
        ("ZhaoZuoxiang/fear/203.wav", None, "casia-ZhaoZuoxiang"),
    ],
    "emovo": [
        ("f1/gio-f1-b1.wav", "happy", "emovo-f1"),
        ("m3/rab-m3-d2.wav", "angry", "emovo-m3"),
        ("m3/pau-m3-d2.wav", None, "emovo-m3"),
    ],
    "jl": [("male1_angry_10a_1.wav", "angry", "jl-male1"), ("female2_anxious_9b_2.wav", None, "jl-female2")],
    "subesco": [
        ("F_02_MONIKA_S_1_NEUTRAL_5.wav", "neutral", "subesco-F_02"),
        ("M_11_MAMUN_S_10_FEAR_1.wav", None, "subesco-M_11"),
    ],
    "aesdd": [("anger/a01 (1).wav", "angry", "aesdd-1"), ("fear/f03 (2).wav", None, "aesdd-2")],
    "cafe": [
        ("01-C-2-3.wav", "angry", "cafe-01"),
        ("12-N-6.wav", "neutral", "cafe-12"),
        ("12-P-1-6.wav", None, "cafe-12"),
    ],
    "ased": [
        ("05Angry/a5-03-01-02-50.wav", "angry", "ased-50"),
        ("01Neutral/n1-07-02-01-62.wav", "neutral", "ased-62"),
        ("02Fearful/f2-07-02-01-62.wav", None, "ased-62"),
    ],
    "turev": [
        ("Sound Source/Angry/1157_kz_beste.wav", "angry", "turev-1157"),
        ("Sound Source/Happy/1234_mt_acik.wav", "happy", "turev-1234"),
        ("Sound Source/Sad/1157_hl_algi.wav", "sad", "turev-1157"),
        ("Sound Source/Calm/1234_sk_algi.wav", None, "turev-1234"),
    ],
    "shemo": [("female/F01A01.wav", "angry", "shemo-F01"), ("male/M02W12.wav", None, "shemo-M02")],
}

WITH_LABEL_FILES = {
    "iemocap": (
        {
            "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt": (
                "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
                "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"
                "C-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
                "[10.0100 - 11.3925]\tSes01F_impro01_M001\texc\t[2.5000, 2.5000, 2.5000]\n"
                "[12.0 - 13.0]\tSes01F_impro01_F002\tfru\t[2.5000, 2.5000, 2.5000]\n"
            ),
            "Session5/dialog/EmoEvaluation/Ses05M_script01_1b.txt": (
                "[1.0 - 2.0]\tSes05M_script01_1b_M010\tang\t[1.5000, 4.0000, 4.5000]\n"
                "[2.0 - 3.0]\tSes05M_script01_1b_F011\txxx\t[1.5000, 4.0000, 4.5000]\n"
            ),
            "Session1/dialog/EmoEvaluation/Attribute/Ses01F_impro01_atr.txt": "Ses01F_impro01_F000 :act 2;\n",
        },
        [
            ("Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav", "neutral", "iemocap-01F"),
            ("Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M001.wav", "happy", "iemocap-01M"),
            ("Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F002.wav", None, "iemocap-01F"),
            ("Session5/sentences/wav/x/Ses05M_script01_1b_M010.wav", "angry", "iemocap-05M"),
            ("Session5/sentences/wav/x/Ses05M_script01_1b_F011.wav", None, "iemocap-05F"),
            ("Session1/dialog/wav/Ses01F_impro01.wav", None, ""),
        ],
    ),
    "msp-improv": (
        {
            "Evalution.txt": (
                "UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:3.0; V:3.5; D:3.0 ; N:4.0;\n"
                "Ann_1; Neutral; Neutral; A:3.0; V:3.0; D:3.0; N:4.0;\n"
                "UTD-IMPROV-S08S-M06-R-MM01.avi; S; A:NaN; V:1.5; D:3.0 ; N:4.0;\n"
                "UTD-IMPROV-S08S-M06-S-MF12.avi; X; A:3.0; V:1.5; D:3.0 ; N:4.0;\n"
            )
        },
        [
            ("session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav", "neutral", "msp-improv-F01"),
            ("session6/S08S/R/MSP-IMPROV-S08S-M06-R-MM01.wav", "sad", "msp-improv-M06"),
            ("session6/S08S/S/MSP-IMPROV-S08S-M06-S-MF12.wav", None, "msp-improv-M06"),
            ("session6/S08S/S/MSP-IMPROV-S08S-M06-S-MF13.wav", None, "msp-improv-M06"),  # in no label file
        ],
    ),
    "msp-podcast": (
        {
            "Labels/labels_consensus.csv": (
                "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n"
                "MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,30,Male,Test1\n"
                "MSP-PODCAST_0002_0033_0001.wav,A,2.2,4.0,2.6,Unknown,Female,Train\n"
                "MSP-PODCAST_0003_0001.wav,C,2.2,4.0,2.6,39,Male,Train\n"
            )
        },
        [
            ("Audios/MSP-PODCAST_0001_0008.wav", "neutral", "msp-podcast-30"),
            ("Audios/MSP-PODCAST_0002_0033_0001.wav", "angry", None),
            ("Audios/MSP-PODCAST_0003_0001.wav", None, "msp-podcast-39"),
        ],
    ),
    "meld": (
        {
            "train/train_sent_emo.csv": (
                "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode\n"
                '1,"Oh my God, he\u2019s lost it.",Phoebe,sadness,negative,0,0,4,7,"00:20:57,256"\n'
                '2,What?,The Waiter,surprise,negative,0,1,4,7,"00:21:01,927","00:21:03,261"\n'
            ),
            "test_sent_emo.csv": '1,No.,Mark,joy,positive,0,0,3,19,"00:14:38,127","00:14:40,378"\n',
        },
        [
            ("train/train_splits/dia0_utt0.wav", "sad", "meld-Phoebe"),
            ("train/train_splits/dia0_utt1.wav", None, "meld-The Waiter"),
            ("test/output_repeated_splits_test/dia0_utt0.wav", "happy", "meld-Mark"),
        ],
    ),
}


def made(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("corpus", CORPORA)
def test_names_labels_and_speakers(tmp_path: Path, corpus: str) -> None:
    label_files, names = WITH_LABEL_FILES.get(corpus) or ({}, NAMES[corpus])
    made(tmp_path, label_files | {name: "" for name, _, _ in names})
    found = scan(tmp_path)
    assert found.corpus == corpus
    assert {clip.name: (clip.label, clip.speaker) for clip in found.clips} == {
        name: (label, speaker) for name, label, speaker in names if label
    }
    assert {clip.language for clip in found.clips} == {CORPORA[corpus].language}
    left_out = [
        count for reason, count in found.left_out.items() if not reason.startswith(".")
    ]  # label files
    assert sum(left_out) == sum(label is None for _, label, _ in names)


@pytest.mark.parametrize(
    ("corpus", "order", "wanted"),
    [
        ("iemocap", ("valence", "arousal", "dominance"), [(2.5, 2.5, 2.5), (2.5, 2.5, 2.5), (1.5, 4.0, 4.5)]),
        ("msp-podcast", ("arousal", "valence", "dominance"), [(2.2, 4.0, 2.6)] * 2),
    ],
)
def test_raters_numbers_are_columns(
    tmp_path: Path, corpus: str, order: tuple[str, ...], wanted: list[tuple[float, ...]]
) -> None:
    label_files, names = WITH_LABEL_FILES[corpus]
    made(tmp_path, label_files | {name: "" for name, _, _ in names})
    prepare(tmp_path, tmp_path / "all.csv")
    clips = read_manifest(tmp_path / "all.csv").clips
    assert [tuple(float(clip.extra[name]) for name in order) for clip in clips] == wanted
    values = dimension_values(clips, dict.fromkeys(order, (1.0, 7.0)), "all.csv")
    np.testing.assert_allclose(values * 6 + 1, wanted)


@pytest.mark.parametrize("corpus", WITH_LABEL_FILES)
def test_label_files_are_asked_for(tmp_path: Path, corpus: str) -> None:
    made(tmp_path, {name: "" for name, _, _ in WITH_LABEL_FILES[corpus][1]})
    with pytest.raises(
        ManifestError, match=r"keeps its labels in .* not found: give the corpus's top folder"
    ):
        scan(tmp_path)


WITHOUT = {"aesdd": {"neutral"}, "turev": {"neutral"}}


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_corpus_has_the_four_labels(corpus: str) -> None:
    found = {Naming(LABELS).label(emotion) for emotion in CORPORA[corpus].codes.values()}
    assert found >= set(LABELS) - WITHOUT.get(corpus, set())


def test_other_groups_become_columns(tmp_path: Path) -> None:
    made(tmp_path, {"1001_DFA_ANG_HI.wav": ""})
    assert scan(tmp_path).clips[0].extra == {"sentence": "DFA", "intensity": "HI", "emotion": "angry"}


def test_copies_count_once_and_lossless_wins(tmp_path: Path) -> None:
    names = ["AudioMP3/1001_DFA_ANG_XX.mp3", "AudioWAV/1001_DFA_ANG_XX.wav", "copy/1001_DFA_ANG_XX.wav"]
    made(tmp_path, dict.fromkeys(names, ""))
    found = scan(tmp_path)
    assert [clip.name for clip in found.clips] == ["AudioWAV/1001_DFA_ANG_XX.wav"]
    assert found.left_out == {"a copy of another clip": 2}


def test_mapping_can_be_overridden(tmp_path: Path) -> None:
    files, names = WITH_LABEL_FILES["iemocap"]
    made(tmp_path, files | {name: "" for name, _, _ in names})
    found = scan(tmp_path, naming=Naming(LABELS, renamed={"excited": "", "frustrated": "anger"}))
    assert sorted(clip.label or "" for clip in found.clips) == ["angry", "angry", "neutral"]
    assert found.mapping["excited"] is None
    assert found.mapping["frustrated"] == "angry"
    with pytest.raises(
        ManifestError, match=r"--map bored=sad: iemocap has no such emotion \(it has: angry, "
    ):
        scan(tmp_path, naming=Naming(LABELS, renamed={"bored": "sad"}))
    added = scan(tmp_path, naming=Naming(LABELS, renamed={"frustrated": "annoyed", "no agreement": "other"}))
    assert {added.mapping[one] for one in ("frustrated", "no agreement")} == {"annoyed", "other"}


def test_nothing_left(tmp_path: Path) -> None:
    made(tmp_path, {"03-01-06-01-01-01-01.wav": "", "03-01-07-01-01-01-01.wav": ""})
    with pytest.raises(ManifestError, match=r"no clip has one of the labels .* \(found fear 1, disgust 1\)"):
        scan(tmp_path)


def test_sets_of_the_corpora(tmp_path: Path) -> None:
    files, names = WITH_LABEL_FILES["meld"]
    made(tmp_path / "meld", files | {name: "" for name, _, _ in names})
    assert {clip.name: clip.extra["set"] for clip in scan(tmp_path / "meld").clips} == {
        "train/train_splits/dia0_utt0.wav": "train",
        "test/output_repeated_splits_test/dia0_utt0.wav": "test",
    }
    made(
        tmp_path / "msp",
        {
            "Labels/labels_concensus.csv": "MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6\n",
            "Partitions.txt": "Test1; MSP-PODCAST_0001_0008.wav\nTrain; MSP-PODCAST_0009_0001.wav\n",
            "Audios/MSP-PODCAST_0001_0008.wav": "",
        },
    )
    [clip] = scan(tmp_path / "msp").clips
    assert (clip.label, clip.speaker, clip.extra["set"]) == ("neutral", None, "Test1")


def test_several_corpora_in_one_folder(tmp_path: Path) -> None:
    for corpus in ("ravdess", "esd", "emovo"):
        made(tmp_path / "all" / f"my {corpus}", {name: "" for name, _, _ in NAMES[corpus]})
    own = {f"all/own/{label}/{i}.wav": "" for label in ("angry", "sad", "music") for i in range(4)}
    made(tmp_path, own)
    found = scan(tmp_path)
    assert found.corpus == "emovo and esd and ravdess and folders"
    assert found.counts == {"emovo": 2, "esd": 2, "ravdess": 4, "folders": 8}
    assert found.left_out == {"fear": 1, "surprise": 1, "calm": 1, "music": 4} and found.lost == 4
    labels = {clip.name.removeprefix("all/my "): (clip.label, clip.speaker) for clip in found.clips}
    for corpus in ("ravdess", "esd", "emovo"):
        for name, label, speaker in NAMES[corpus]:
            assert labels.get(f"{corpus}/{name}", (None, speaker)) == (label, speaker)
    renamed = scan(tmp_path, naming=Naming(LABELS, renamed={"calm": "neutral", "music": ""}))
    assert renamed.counts["ravdess"] == 5 and renamed.lost == 0
    unknown = tmp_path / "all" / "other"
    made(unknown, {f"{i}.wav": "" for i in range(3)})
    for file in own:
        (tmp_path / file).unlink()
    found = scan(tmp_path)
    assert (found.left_out["not in the corpus's naming"], found.lost, len(found.clips)) == (3, 3, 8)


def test_several_corpora_mixed(tmp_path: Path) -> None:
    made(
        tmp_path,
        {Path(name).name: "" for corpus in ("ravdess", "emovo", "jl") for name, _, _ in NAMES[corpus]},
    )
    assert scan(tmp_path).counts == {"emovo": 2, "ravdess": 4, "jl": 1}


def test_real_names(corpora: Path) -> None:
    """The names give the labels and speakers that the corpora's own manifests list."""
    from mifuse.clips.manifest import read_manifest

    for name in ("ravdess", "nemo"):
        listed = read_manifest(corpora / name / "source.csv").clips
        found = scan(corpora / name)
        assert found.corpus == name
        assert {(c.name, c.label, c.speaker, c.language) for c in found.clips} == {
            (c.name, c.label, c.speaker, c.language) for c in listed
        }
