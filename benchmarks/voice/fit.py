"""The gate's network, fitted to voices of espeak-ng in ten languages among sounds: no recordings."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.signal import lfilter, resample_poly

from benchmarks.voice.ports import write_ports
from benchmarks.voice.sounds import FRAME, Speech, mixed, sound
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
SECONDS, HIDDEN, SECOND, EPOCHS, BATCH, RATE = 4, 24, 16, 30, 32, 4e-3
MISSES = 2.0  # what a lost frame of speech costs against a false alarm, beside their shares
LEVELS = (25, 12, 4)  # dB of the speech over the sounds
ALONE = {"music": 250, "tones": 60, "hum": 60, "hiss": 60, "breath": 60}  # pieces without speech
LEAN = 1.75  # log odds towards speech: with those pieces the network loses voices among sounds as loud


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


Example = tuple[Floats, Speech, Speech]


class Network(torch.nn.Module):
    """The gate's network, to be fitted: `vad.log_power` (B, T, VALUES) -> log odds of speech (B, T)."""

    def __init__(self) -> None:
        super().__init__()
        fine = vad.FINE[1] - vad.FINE[0]
        groups = torch.zeros(vad.VALUES, fine // vad.GROUP + vad.BANDS)
        for value in range(vad.VALUES):
            column = value // vad.GROUP if value < fine else value - fine + fine // vad.GROUP
            groups[value, column] = 1 / vad.GROUP if value < fine else 1
        self.groups = groups
        self.power = torch.nn.Linear(vad.VALUES, HIDDEN)
        self.changes = torch.nn.Linear(groups.shape[1] * len(vad.LAGS), HIDDEN, bias=False)
        self.second = torch.nn.Linear(2 * HIDDEN, SECOND)
        self.output = torch.nn.Linear(SECOND, 1)

    def weights(self) -> torch.Tensor:
        """Of a frame's power: of sum 0, so that a level makes no difference."""
        return self.power.weight - self.power.weight.mean(dim=1, keepdim=True)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        before = lambda x, count: torch.cat([x[:, :1].expand(-1, count, -1), x], dim=1)  # noqa: E731
        lead, length = max(vad.LAGS), values.shape[1]
        known = before(values, lead)
        changes = [
            (values - known[:, lead - lag : lead - lag + length]).abs() @ self.groups for lag in vad.LAGS
        ]
        hidden = torch.nn.functional.linear(values, self.weights(), self.power.bias)
        hidden = torch.relu(hidden + self.changes(torch.cat(changes, dim=2)))
        mean = before(hidden, vad.CONTEXT - 1).unfold(1, vad.CONTEXT, 1).mean(dim=3)
        return self.output(torch.relu(self.second(torch.cat([hidden, mean], dim=2))))[..., 0]


def examples(count: int) -> list[Example]:
    """Log power (k, VALUES), speech and sure frames (k,) of voices among sounds."""
    clips, rng, found = [*voices(count), *plain(count // 5)], np.random.default_rng(1), []
    for number, decibels in enumerate(LEVELS):
        for _, made, speech, sure in mixed(clips[number :: len(LEVELS)], decibels, number, telephone=0.4):
            frames = (made * np.float32(10 ** rng.uniform(-1, 0))).reshape(-1, FRAME)
            size = min(len(frames), len(speech), len(sure))
            found.append((vad.log_power(frames[:size]), speech[:size], sure[:size]))
    return found


def alone() -> list[Example]:
    """The same of sounds in which nobody speaks."""
    rng, found = np.random.default_rng(3), []
    for kind, count in ALONE.items():
        for _ in range(count):
            made = sound(kind, SECONDS * 16_000, rng) * np.float32(10 ** rng.uniform(-2.5, -0.5))
            values = vad.log_power(vad.framed(made, 16_000))
            found.append((values, np.zeros(len(values), bool), np.ones(len(values), bool)))
    return found


def fit(count: int = 360) -> dict[str, object]:
    """Weights and biases, as `vad.json` holds them."""
    torch.manual_seed(0)
    rng, known, network = np.random.default_rng(2), [*examples(count), *alone()], Network()
    sizes = np.array([len(values) for values, _, _ in known])
    voiced = np.concatenate([speech[sure] for _, speech, sure in known]).mean()
    loss = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(MISSES * (1 / voiced - 1)), reduction="none")
    optimizer = torch.optim.Adam(network.parameters(), weight_decay=1e-5)
    steps = EPOCHS * -(-len(known) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    for epoch in range(EPOCHS):
        order = np.argsort(sizes + rng.uniform(0, 10, sizes.size))  # of about one length together
        for rows in rng.permutation(-(-len(known) // BATCH)):
            values, speech, sure = _batch([known[i] for i in order[rows * BATCH :][:BATCH]], rng)
            optimizer.zero_grad()
            ((loss(network(values), speech) * sure).sum() / sure.sum()).backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {EPOCHS}", flush=True)
    return _content(network)


def _batch(
    some: Sequence[Example], rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log power (B, T, VALUES) at levels of their own, speech and what counts (B, T)."""
    shape = (len(some), max(len(values) for values, _, _ in some))
    values, speech, sure = np.zeros((*shape, vad.VALUES), np.float32), np.zeros(shape), np.zeros(shape)
    for row, (logs, voiced, counts) in enumerate(some):
        # Half of them begin anywhere, as clips that are cut out of speech do.
        start = rng.integers(max(1, len(logs) - vad.CONTEXT)) if rng.random() < 0.5 else 0
        logs, voiced, counts = logs[start:], voiced[start:], counts[start:]  # noqa: PLW2901
        power = np.maximum(np.exp(logs) - vad.POWER_FLOOR, 0) * 10 ** rng.uniform(-2, 0)
        values[row, : len(logs)] = np.log(power + vad.POWER_FLOOR)
        speech[row, : len(logs)], sure[row, : len(logs)] = voiced, counts
    return torch.from_numpy(values), torch.from_numpy(speech).float(), torch.from_numpy(sure).float()


def _content(network: Network) -> dict[str, object]:
    hidden = torch.cat([network.weights(), network.changes.weight], dim=1)
    rounded = lambda array: [float(f"{value:.5g}") for value in np.ravel(array.detach())]  # noqa: E731
    return {
        "hidden": [rounded(row) for row in hidden.T],
        "hidden_bias": rounded(network.power.bias),
        "second": [rounded(row) for row in network.second.weight.T],
        "second_bias": rounded(network.second.bias),
        "output": rounded(network.output.weight),
        "output_bias": rounded(network.output.bias + LEAN)[0],
    }


def write(path: Path) -> None:
    """Fit, and write the file and those that are made of it."""
    rows = json.dumps(fit(), separators=(",", ":")).replace("],", "],\n").replace(',"', ',\n"')
    path.write_text(rows + "\n", encoding="utf-8")
    vad.layers.cache_clear()
    write_ports()
