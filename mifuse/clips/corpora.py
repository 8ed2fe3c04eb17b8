"""Public corpora and how they name their files, speakers and emotions.

A corpus is one declaration: a pattern of its paths, its emotion codes and, where the names do not say it,
the pattern of a line of its label files. Sources: the corpora's own documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Corpus:
    """How a corpus names things.

    Args:
        language: ISO 639-1, None if unknown.
        pattern: matches the end of a path without suffix. Groups: `emotion` (a code), `speaker`, `key`
            (what label files call the clip); every other group becomes a column of the manifest.
        codes: code -> emotion; an emotion that is no label and no alias of one is left out by default.
        speaker: the speaker's name, made of groups.
        label_files: glob below the folder, when names hold no emotion.
        label_name: matches the name of such a file; its groups belong to each of its lines.
        label_line: matches a line of these files; groups as in `pattern`, `emotion` required.
        key: what `label_line` and `pattern` have in common, made of groups.
        set_files, set_line: the same of files that say which set of the corpus a clip is in.
    """

    language: str | None
    pattern: str
    codes: Mapping[str, str]
    speaker: str = "{speaker}"
    label_files: str = ""
    label_name: str = ""
    label_line: str = ""
    key: str = "{key}"
    set_files: str = ""
    set_line: str = ""


_LETTERS = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}
_KOREMO = {f"{i + 1:05d}": ("neutral", "happy", "sad", "angry")[i // 100] for i in range(400)}
_MSP = _LETTERS | {"O": "other", "X": "no agreement"}

CORPORA = {
    # 03-01-05-02-01-01-12: audio (01: of a video), speech, angry, strong, sentence 1, take 1, actor 12.
    "ravdess": Corpus(
        "en",
        r"0[13]-01-(?P<emotion>0[1-8])-(?P<intensity>0[12])-(?P<sentence>0[12])-0[12]-(?P<speaker>\d\d)",
        {"01": "neutral", "02": "calm", "03": "happy", "04": "sad"}
        | {"05": "angry", "06": "fear", "07": "disgust", "08": "surprise"},
    ),
    # 03a01Wa: speaker 03, sentence a01, Wut, take a.
    "emodb": Corpus(
        "de",
        r"(?P<speaker>\d\d)(?P<sentence>[ab]\d\d)(?P<emotion>[WLEAFTN])[a-z]?",
        {"W": "angry", "L": "bored", "E": "disgust", "A": "fear", "F": "happy", "T": "sad", "N": "neutral"},
    ),
    # EB0_anger_1
    "nemo": Corpus(
        "pl",
        r"(?P<speaker>[A-Z]{2}\d)_(?P<emotion>[a-z]+)_(?P<sentence>\d+)",
        {"anger": "angry", "fear": "fear", "happiness": "happy", "neutral": "neutral"}
        | {"sadness": "sad", "surprise": "surprise", "surprised": "surprise"},
    ),
    # 1001_DFA_ANG_XX
    "crema-d": Corpus(
        "en",
        r"(?P<speaker>1\d{3})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?P<intensity>LO|MD|HI|XX?)",
        {"ANG": "angry", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"},
    ),
    # Ses01F_impro01_M000: the F names the actor with the markers, the last letter the one who speaks.
    "iemocap": Corpus(
        "en",
        r"(?P<key>Ses(?P<session>0[1-5])[FM]_(?P<dialog>(?:impro|script)\w+)_(?P<sex>[FM])\d{3})",
        {
            "ang": "angry",
            "hap": "happy",
            "exc": "excited",
            "neu": "neutral",
            "sad": "sad",
            "fru": "frustrated",
        }
        | {"fea": "fear", "sur": "surprise", "dis": "disgust", "oth": "other", "xxx": "no agreement"},
        speaker="{session}{sex}",
        label_files="**/EmoEvaluation/Ses*.txt",
        label_line=r"\[[\d.]+ - [\d.]+\]\s+(?P<key>Ses\w+)\s+(?P<emotion>[a-z]{3})\s"
        r"(?:\s*\[(?P<valence>[\d.]+), *(?P<arousal>[\d.]+), *(?P<dominance>[\d.]+)\])?",
    ),
    # MSP-IMPROV-S01A-F01-P-FM01; the label file is really called Evalution.txt. The labels are the raters'.
    "msp-improv": Corpus(
        "en",
        r"MSP-IMPROV-(?P<key>S\d\d[AHNS]-(?P<speaker>[FM](?P<session>\d\d))-(?P<condition>[PRST])-[FM]{2}\d+)",
        _MSP,
        label_files="**/Eval*tion.txt",
        label_line=r"(?:UTD|MSP)-IMPROV-(?P<key>[\w-]+)\.\w+;\s*(?P<emotion>[A-Z]);",
    ),
    # FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set; early releases spell it concensus.
    "msp-podcast": Corpus(
        "en",
        r"(?P<key>MSP-PODCAST(?:_\d+)+)",
        _MSP | {"U": "surprise", "F": "fear", "D": "disgust", "C": "contempt"},
        label_files="**/labels_con*ensus.csv",
        label_line=r"(?P<key>MSP-PODCAST[_\d]+)\.wav,(?P<emotion>[A-Z]),"
        r"(?P<arousal>[^,]*),(?P<valence>[^,]*),(?P<dominance>[^,]*)"
        r"(?:,(?P<speaker>[^,]*),(?P<sex>[^,]*),(?P<set>\w+))?",
        # Of releases whose labels do not say it: Train; MSP-PODCAST_0023_0048.wav
        set_files="**/[Pp]artitions.txt",
        set_line=r"(?P<set>\w+)\s*;\s*(?P<key>MSP-PODCAST[_\d]+)\.wav",
    ),
    # train/train_splits/dia0_utt0.mp4, dev/dev_splits_complete/…, test/output_repeated_splits_test/…, or the
    # same as WAV: numbers start again in each set. Columns of train_sent_emo.csv: number, utterance, speaker,
    # emotion, sentiment, dialogue, utterance, season, episode, times.
    "meld": Corpus(
        "en",
        r"[^/]*(?P<set>train|dev|test)[^/]*/dia(?P<dialogue>\d+)_utt(?P<utterance>\d+)",
        {"anger": "angry", "disgust": "disgust", "fear": "fear", "joy": "happy", "neutral": "neutral"}
        | {"sadness": "sad", "surprise": "surprise"},
        label_files="**/*_sent_emo*.csv",
        label_name=r"(?P<set>train|dev|test)_sent_emo",
        label_line=r'.*,"?(?P<speaker>[^,"]+)"?,(?P<emotion>[a-z]+),(?:positive|neutral|negative),'
        r"(?P<dialogue>\d+),(?P<utterance>\d+),",
        key="{set}/{dialogue}/{utterance}",
    ),
    # SM1_F10_A010: male speaker 1, his file 10.
    "urdu": Corpus("ur", r"(?P<speaker>S[MF]\d+)_F\d+_(?P<emotion>[AHNS])\d+", _LETTERS),
    # OAF_back_angry; one file lacks the F of its speaker. ps: pleasant surprise.
    "tess": Corpus(
        "en",
        r"(?P<speaker>OA|YA)F?_(?P<word>[a-z]+)_(?P<emotion>[a-z]+)",
        {word: word for word in ("angry", "disgust", "fear", "happy", "neutral", "sad")} | {"ps": "surprise"},
    ),
    # DC/a01 as released, DC_a01 in copies.
    "savee": Corpus(
        "en",
        r"(?P<speaker>DC|JE|JK|KL)[/_]?(?P<emotion>sa|su|[adfhn])(?P<sentence>\d\d)",
        {"a": "angry", "h": "happy", "n": "neutral", "sa": "sad"}
        | {"d": "disgust", "f": "fear", "su": "surprise"},
    ),
    # 0011/Angry/train/0011_000351, in copies without the folder of the partition.
    "esd": Corpus(
        None,
        r"(?P<speaker>00\d\d)/(?P<emotion>Angry|Happy|Neutral|Sad|Surprise)/"
        r"(?:(?P<set>train|test|evaluation)/)?00\d\d_\d{6}",
        {word: word.lower() for word in ("Angry", "Happy", "Neutral", "Sad", "Surprise")},
    ),
    # liuchanhg/angry/201: four speakers.
    "casia": Corpus(
        "zh",
        r"(?P<speaker>liuchan[hg]+|wangzhe|zhaoquan[yi]+n|[Zz]hao[Zz]uoxiang)/"
        r"(?P<emotion>angry|fear|happy|neutral|sad|surprise)/(?P<sentence>\d+)",
        {word: word for word in ("angry", "fear", "happy", "neutral", "sad", "surprise")},
    ),
    # gio-f1-b1: gioia, woman 1, sentence b1.
    "emovo": Corpus(
        "it",
        r"(?P<emotion>dis|gio|neu|pau|rab|sor|tri)-(?P<speaker>[fm][1-3])-(?P<sentence>[a-z]\d)",
        {"dis": "disgust", "gio": "happy", "neu": "neutral", "pau": "fear", "rab": "angry"}
        | {"sor": "surprise", "tri": "sad"},
    ),
    # male1_angry_10a_1
    "jl": Corpus(
        "en",
        r"(?P<speaker>(?:fe)?male\d)_(?P<emotion>[a-z]+)_(?P<sentence>\d+[ab])_\d",
        {word: word for word in ("angry", "excited", "happy", "neutral", "sad", "anxious", "apologetic")}
        | {word: word for word in ("assertive", "concerned", "encouraging")},
    ),
    # F_02_MONIKA_S_1_NEUTRAL_5: woman 2, her name, sentence 1, take 5.
    "subesco": Corpus(
        "bn",
        r"(?P<speaker>[FM]_\d\d)_[A-Za-z]+_S_(?P<sentence>\d+)_(?P<emotion>[A-Z]+)_\d+",
        {word.upper(): word for word in ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")},
    ),
    # a01 (1): anger, sentence 1, speaker 1.
    "aesdd": Corpus(
        "el",
        r"(?P<emotion>[adfhs])(?P<sentence>\d\d) ?\((?P<speaker>\d)\)[a-z]?",
        {"a": "angry", "d": "disgust", "f": "fear", "h": "happy", "s": "sad"},
    ),
    # 01-C-2-3: speaker 1, colère, strong, sentence 3; 01-N-3 has no intensity.
    "cafe": Corpus(
        "fr",
        r"(?P<speaker>\d\d)-(?P<emotion>[CDJNPST])(?:-(?P<intensity>[12]))?-(?P<sentence>[1-6])",
        {
            "C": "angry",
            "D": "disgust",
            "J": "happy",
            "N": "neutral",
            "P": "fear",
            "S": "surprise",
            "T": "sad",
        },
    ),
    # F01A01: woman 1, anger, her first.
    "shemo": Corpus(
        "fa",
        r"(?P<speaker>[FM]\d\d)(?P<emotion>[AFHNSW])(?P<sentence>\d{2,3})",
        _LETTERS | {"F": "fear", "W": "surprise"},
    ),
    # a5-03-01-02-50: anger, sentence 3, first time, a man, speaker 50.
    "ased": Corpus(
        "am",
        r"(?P<emotion>[nfhsa])[1-5]-(?P<sentence>\d\d)-\d\d-0[12]-(?P<speaker>\d\d)",
        {"n": "neutral", "f": "fear", "h": "happy", "s": "sad", "a": "angry"},
    ),
    # Angry/1157_kz_beste: speaker 1157, kızgın, the word "beste"; sakin, mutlu, hüzünlü.
    "turev": Corpus(
        "tr",
        r"(?P<speaker>\d{4})_(?P<emotion>kz|sk|mt|hl)_(?P<word>[a-z]+)",
        {"kz": "angry", "sk": "calm", "mt": "happy", "hl": "sad"},
    ),
    # nea00201: emotional script, speaker a, file 201 (emotiontts_open_db). Its documentation calls 201 to 300
    # angry and 301 to 400 sad, but sentences and voices of all speakers are the other way round.
    "koremo": Corpus("ko", r"(?P<speaker>(?:em|ne)[a-z])(?P<emotion>00[0-4]\d\d)", _KOREMO),
}
