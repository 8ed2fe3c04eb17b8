import os

import numpy as np
import pytest
import torch

from mifuse.clips import shards
from mifuse.clips.audio import AudioCache
from mifuse.clips.manifest import read_manifest
from mifuse.demo.synth import make_domain
from mifuse.errors import AudioError
from mifuse.models import features as features_module
from mifuse.models.features import PADDING, Features
from mifuse.models.frontend import N_MELS, LogMel


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("domain")
    return [
        clip
        for i, seconds in enumerate((0.4, 1.0))
        for clip in read_manifest(
            make_domain(folder / str(i), "studio", speakers=1, clips_per_speaker=3, seconds=seconds)
        ).clips
    ]


@pytest.fixture
def cache(tmp_path):
    return AudioCache(tmp_path / "cache")


def cached_files(cache, suffix):
    return sorted((cache.folder / "features").glob(f"*{suffix}"))


def test_features_are_the_front_ends(clips, cache):
    features = Features.of(clips, cache)
    assert len(features) == len(clips)
    for i, clip in enumerate(clips):
        expected = LogMel().logmel(torch.from_numpy(cache.samples(clip))[None])
        torch.testing.assert_close(features.batch([i]), expected, rtol=1e-3, atol=1e-3)
    untrimmed = Features.of(clips, cache, trim=False)
    assert (untrimmed.lengths >= features.lengths).all()
    assert (untrimmed.lengths > features.lengths).any()


def test_second_call_comes_from_the_cache(clips, cache, monkeypatch):
    seen = []
    first = Features.of(clips, cache, progress=seen.append)
    assert seen == [1] * len(clips)
    monkeypatch.setattr(features_module, "_logmels", None)  # would fail when called
    second = Features.of(clips, AudioCache(cache.folder.parent))
    assert np.array_equal(first.frames, second.frames)
    assert np.array_equal(first.offsets, second.offsets)


def test_several_files_are_as_one(clips, cache, monkeypatch):
    one = Features.of(clips, cache)
    monkeypatch.setattr(shards, "SHARD", 4)
    several = Features.of(clips, cache)
    assert len(cached_files(cache, ".frames")) == 3
    assert np.array_equal(several.offsets, one.offsets)
    assert torch.equal(several.batch([5, 0, 3, 4]), one.batch([5, 0, 3, 4]))


def test_order_and_content_matter(clips, cache):
    features = Features.of(clips, cache)
    turned = Features.of(clips[::-1], cache)
    assert turned.lengths.tolist() == features.lengths.tolist()[::-1]
    assert len(cached_files(cache, ".npy")) == 2


@pytest.mark.parametrize("suffix", [".frames", ".npy"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut"])
def test_damaged_cache_is_made_again(clips, cache, suffix, damage):
    first = np.array(Features.of(clips, cache).frames)
    (file,) = cached_files(cache, suffix)
    if damage == "gone":
        file.unlink()
    else:
        os.truncate(file, 0 if damage == "empty" else file.stat().st_size - 3)
    assert np.array_equal(Features.of(clips, cache).frames, first)


def test_killed_between_the_two_files(clips, cache, monkeypatch):
    cache.folder.mkdir(parents=True)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            features_module._write(
                [np.zeros((3, N_MELS), np.float16)], cache.folder / "x.frames", cache.folder / "x.npy"
            )
    assert sorted(file.name for file in cache.folder.glob("x.*")) == ["x.frames"]
    first = np.array(Features.of(clips, cache).frames)
    (frames,), (offsets,) = cached_files(cache, ".frames"), cached_files(cache, ".npy")
    (cache.folder / "x.frames").replace(frames)
    offsets.unlink()
    assert np.array_equal(Features.of(clips, cache).frames, first)


def test_failure_leaves_no_features(clips, cache, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    bad = type(clips[0])(name="broken.wav", path=broken)
    with pytest.raises(AudioError, match=r"broken\.wav"):
        Features.of([*clips, bad], cache)
    assert list((cache.folder / "features").iterdir()) == []


def test_batch_pads_with_silence(clips, cache):
    features = Features.of(clips, cache)
    batch = features.batch([0, 5])
    short, long = features.lengths[0], features.lengths[5]
    assert batch.shape == (2, long, N_MELS)
    assert (batch[0, short:] == PADDING).all()
    torch.testing.assert_close(batch[0, :short], features.batch([0])[0])
    # The student makes no difference between padding and silence.
    x, mask, _ = LogMel().normalise(batch)
    assert not mask[0, 0, short:].any()
    torch.testing.assert_close(x[:1, :, :short], LogMel().normalise(features.batch([0]))[0])


def test_batches_hold_every_clip_once(clips, cache):
    features = Features.of(clips, cache)
    batches = list(features.batches(4))
    assert [len(b) for b in batches] == [4, 2]
    assert sorted(np.concatenate(batches)) == list(range(len(clips)))
    lengths = features.lengths[np.concatenate(batches)]
    assert (np.diff(lengths) >= 0).all()
