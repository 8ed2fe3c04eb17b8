"""The benchmark of kept activations keeps them right: where features stay, they are those made anew."""

from __future__ import annotations

import pytest
import torch

from benchmarks.keeping import CONTEXT, STRIDE, Keeping
from mifuse.models.frontend import N_MELS
from mifuse.models.student import Student


@pytest.mark.parametrize("budget", [0, 96, 1000])
def test_kept_activations_are_those_made_anew(budget: int) -> None:
    torch.manual_seed(0)
    blocks = Student(size="xs").eval().blocks
    stream = torch.randn(1, 1, N_MELS, 400)
    keeper, length = Keeping(blocks, budget), 130
    edge = CONTEXT // STRIDE  # activations that depend on what was before the window
    with torch.inference_mode():
        for number, first in enumerate(range(0, 260, 16)):
            window = stream[..., first : first + length]
            found, anew = keeper(window, first), blocks(window)
            assert found.shape == anew.shape
            torch.testing.assert_close(found[..., edge:], anew[..., edge:], rtol=1e-4, atol=1e-5)
            if number and not budget:
                whole = blocks(stream[..., : first + length])[..., first // STRIDE :]
                torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
        again = keeper(window, first, fresh=True)
        torch.testing.assert_close(again, blocks(window), rtol=1e-4, atol=1e-5)
