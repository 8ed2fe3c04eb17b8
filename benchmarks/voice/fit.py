"""The gate's network, fitted to voices of espeak-ng in ten languages among sounds: no recordings."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch
from scipy.signal import lfilter, resample_poly

from benchmarks.voice.ports import write_ports
from benchmarks.voice.sounds import FRAME, mixed
from mifuse_runtime import vad
from mifuse_runtime.audio import Floats

TEXTS = {
    "en-us": "Could you please send me the invoice again? It was to come on Monday. That is really annoying!",
    "de": "Ich habe schon dreimal angerufen, und niemand weiß etwas. Bitte verbinden Sie mich mit jemandem.",
    "pl": "Dzień dobry, chciałbym zapytać o moje zamówienie. Czekam już dwa tygodnie i nic nie przyszło.",
    "es": "No entiendo por qué la factura es tan alta este mes. ¿Puede usted explicármelo, por favor?",
    "fr": "Je vous remercie beaucoup, c'est exactement ce que je voulais. Vous avez fait ma journée!",
    "ko": "안녕하세요, 주문한 물건이 아직 도착하지 않았습니다. 언제 받을 수 있을까요?",
    "it": "Che bella notizia, non ci posso credere! Finalmente qualcuno che mi ascolta davvero.",
    "tr": "Üç gündür bekliyorum ve hala bir cevap alamadım. Lütfen bana yardım edin.",
    "hi": "मेरा फोन काम नहीं कर रहा है। कृपया मेरी मदद कीजिए।",
    "sw": "Habari za asubuhi, ningependa kuzungumza na meneja wenu kuhusu akaunti yangu.",
}
VOICES = ("", "+m1", "+m3", "+m5", "+m7", "+f1", "+f2", "+f3", "+f4", "+f5", "+croak", "+whisper")
SECONDS, HIDDEN, EPOCHS, BATCH, RATE = 4, 16, 12, 1024, 3e-3
MISSES = 2.0  # what a lost frame of speech costs against a false alarm, beside their shares
LEVELS = (25, 12, 4)  # dB of the speech over the sounds


def voices(count: int, seed: int = 0) -> list[Floats]:
    """Clips of `SECONDS` at most, dry or in a room, after some silence."""
    program = shutil.which("espeak-ng")
    if not program:
        raise SystemExit("--fit needs espeak-ng: install it (Debian: apt-get install espeak-ng)")
    rng, clips = np.random.default_rng(seed), []
    for number in range(count):
        language = list(TEXTS)[number % len(TEXTS)]
        voice = rng.choice(VOICES[:-1]) if rng.random() > 0.05 else VOICES[-1]
        options = ["-v", language + voice, "-p", str(rng.integers(10, 95)), "-s", str(rng.integers(110, 220))]
        raw = subprocess.run(
            [program, *options, "--stdout", TEXTS[language]], capture_output=True, check=True
        ).stdout
        samples = np.frombuffer(raw[44 : len(raw) // 2 * 2], "<i2") / 32768
        samples = resample_poly(samples, 320, 441)
        start = rng.integers(0, max(1, samples.size - SECONDS * 16_000))
        samples = lfilter([1, rng.uniform(-0.6, 0.6)], [1], samples[start : start + SECONDS * 16_000])
        if rng.random() < 0.5:
            late = rng.standard_normal(3200) * np.exp(-np.arange(3200) / rng.uniform(200, 1200))
            samples = np.convolve(samples, np.r_[1, rng.uniform(0.02, 0.1) * late])[: samples.size]
        quiet = 1e-5 * rng.standard_normal(int(rng.uniform(0, 0.6) * 16_000))
        samples = np.concatenate([quiet, samples, quiet])
        clips.append((0.5 * 10 ** rng.uniform(-0.8, 0) * samples / np.abs(samples).max()).astype(np.float32))
    return clips


def plain(count: int, seed: int = 1) -> list[Floats]:
    """Harmonics of a pitch that moves, in syllables: voices as plain as tests and demos make them."""
    rng, clips = np.random.default_rng(seed), []
    for _ in range(count):
        time = np.arange(rng.integers(32_000, SECONDS * 16_000)) / 16_000
        pitch = rng.uniform(90, 300)
        moves = 1 + rng.uniform(0.03, 0.2) * np.sin(
            2 * np.pi * rng.uniform(0.4, 2.5) * time + rng.uniform(0, 6)
        )
        phase = 2 * np.pi * np.cumsum(pitch * moves) / 16_000
        formant, width = rng.uniform(400, 1200), rng.uniform(500, 2000)
        made = 0.003 * rng.standard_normal(time.size)
        for k in range(1, rng.integers(10, 30)):
            made += np.sin(k * phase) / k * np.exp(-(((k * pitch - formant) / width) ** 2))
        made *= np.clip(
            np.sin(2 * np.pi * rng.uniform(1, 4) * time + rng.uniform(0, 6)), rng.uniform(0, 0.1), 1
        )
        clips.append((0.5 * 10 ** rng.uniform(-0.8, 0) * made / np.abs(made).max()).astype(np.float32))
    return clips


def fit(count: int = 240) -> dict[str, object]:
    """Weights and biases, as `vad.json` holds them."""
    clips, inputs, targets = [*voices(count), *plain(count // 5)], [], []
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    for number, decibels in enumerate(LEVELS):
        for _, made, speech, sure in mixed(clips[number :: len(LEVELS)], decibels, number, telephone=0.4):
            frames = (made * np.float32(10 ** rng.uniform(-1, 0))).reshape(-1, FRAME)
            values, _ = vad.features(frames, None)
            inputs.append(values[sure[: len(values)]])
            targets.append(speech[sure[: len(speech)]])
    values, wanted = np.concatenate(inputs), torch.from_numpy(np.concatenate(targets).astype(np.float32))
    mean, spread = values.mean(axis=0), values.std(axis=0) + 1e-3
    known = torch.from_numpy((values - mean) / spread)
    network = torch.nn.Sequential(
        torch.nn.Linear(vad.INPUTS, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 1)
    )
    optimizer = torch.optim.Adam(network.parameters(), RATE, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * (len(known) // BATCH))
    loss = torch.nn.BCEWithLogitsLoss(pos_weight=MISSES * (1 - wanted.mean()) / wanted.mean())
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(known)).split(BATCH)[: len(known) // BATCH]:
            optimizer.zero_grad()
            loss(network(known[rows])[:, 0], wanted[rows]).backward()
            optimizer.step()
            schedule.step()
    first, last = network[0], network[2]
    weights = first.weight.detach().numpy() / spread
    bias = first.bias.detach().numpy() - weights @ mean
    rounded = lambda array: [float(f"{value:.5g}") for value in np.ravel(array)]  # noqa: E731
    return {
        "hidden": [rounded(row) for row in weights.T],
        "hidden_bias": rounded(bias),
        "output": rounded(last.weight.detach().numpy()),
        "output_bias": rounded(last.bias.detach().numpy())[0],
    }


def write(path: Path) -> None:
    """Fit, and write the file and those that are made of it."""
    rows = json.dumps(fit(), separators=(",", ":")).replace("],", "],\n").replace(',"', ',\n"')
    path.write_text(rows + "\n", encoding="utf-8")
    vad.layers.cache_clear()
    write_ports()
