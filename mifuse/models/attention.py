"""Attention of `transformers`' encoders in plain operators: PyTorch and the exported graph run the same ones.

Its own makes masks that mask nothing, and WavLM's makes positions anew for each clip and head: operators of
which a bundle may hold none, since nothing bounds their output.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

NAME = "mifuse"  # attn_implementation of a checkpoint


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, scaling: float, **__: Any
) -> tuple[Tensor, None]:
    """As `transformers` asks for it: (batch, heads, frames, width) -> (batch, frames, heads, width)."""
    weights = (query @ key.transpose(2, 3) * scaling).softmax(dim=-1)
    return (weights @ value).transpose(1, 2), None


# No function for masks goes with the name, and none is made then: all frames of a clip are used.
AttentionInterface.register(NAME, attend)


class GatedAttention(WavLMAttention):
    """WavLM's attention: a bias of the distance of two frames, looked up, gated by the input."""

    distances: Tensor

    def forward(  # type: ignore[override]  # its own hands on a tensor, too, and calls it a tuple
        self,
        hidden_states: Tensor,
        attention_mask: None = None,
        position_bias: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, None, Tensor]:
        """Hidden states (batch, frames, hidden); the bias (heads, frames, frames) goes to the next layer."""
        if position_bias is None:
            frame = (hidden_states[0, :, 0] * 0 + 1).cumsum(dim=0)  # 1, 2, …: no operator that makes frames
            distance = (frame[None] - frame[:, None]).clamp(-self.max_distance, self.max_distance)
            table = self.rel_attn_embed(self.distances)
            index = (distance + self.max_distance).long()
            position_bias = nn.functional.embedding(index, table).permute(2, 0, 1)
        query, key, value = (
            self._heads(projection(hidden_states)) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        gates = self.gru_rel_pos_linear(self._heads(hidden_states)).unflatten(-1, (2, 4)).sum(dim=-1)
        first, second = gates.sigmoid().chunk(2, dim=-1)
        gate = first * (second * self.gru_rel_pos_const - 1) + 2
        weights = (query @ key.transpose(2, 3) * self.scaling + gate * position_bias).softmax(dim=-1)
        return self.out_proj((weights @ value).transpose(1, 2).flatten(2)), None, position_bias

    def _heads(self, states: Tensor) -> Tensor:
        return states.reshape(*states.shape[:-1], self.num_heads, self.head_dim).transpose(1, 2)


def plain(model: nn.Module) -> None:
    """Give the WavLM layers of a model `GatedAttention`; parameters and their names stay as they are."""
    for module in model.modules():
        if isinstance(module, WavLMAttention):
            module.__class__ = GatedAttention
            reach = torch.arange(-module.max_distance, module.max_distance + 1)
            # Beyond it, all distances share a bucket.
            module.register_buffer("distances", module._relative_positions_bucket(reach), persistent=False)
