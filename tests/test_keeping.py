"""The benchmark of kept activations keeps them right: where features stay, they are those made anew."""

from __future__ import annotations

import pytest
import torch

from benchmarks.keeping import CONTEXT, STRIDE, Keeping
from mifuse.frontend import N_MELS
from mifuse.student import Student


@pytest.mark.parametrize("budget", [0, 96, 1000])
def test_kept_activations_are_those_made_anew(budget: int) -> None:
    torch.manual_seed(0)
    blocks = Student(size="xs").eval().blocks
    stream, speech = torch.randn(1, 1, N_MELS, 400), (torch.rand(1, 1, 400) > 0.3).float()
    keeper, length = Keeping(blocks, budget), 130
    edge = CONTEXT // STRIDE  # activations that hear what was before the window
    with torch.inference_mode():
        for number, first in enumerate(range(0, 260, 16)):
            window, mask = (part[..., first : first + length] for part in (stream, speech))
            found, anew = keeper(window, mask, first), blocks(window, mask)
            assert found.shape == anew.shape
            torch.testing.assert_close(found[..., edge:], anew[..., edge:], rtol=1e-4, atol=1e-5)
            if number and not budget:
                whole = blocks(*(part[..., : first + length] for part in (stream, speech)))
                whole = whole[..., first // STRIDE :]
                torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
        again = keeper(window, mask, first, fresh=True)
        torch.testing.assert_close(again, blocks(window, mask), rtol=1e-4, atol=1e-5)
