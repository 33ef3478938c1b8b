"""LSTM: the paper's baseline without attention. Causal; what reaches a token went through every one before it.

Hochreiter and Schmidhuber, 1997; with layer norms in the cell, Ba et al., 2016, https://arxiv.org/abs/1607.06450. The
paper's own (Lu et al., 2021: kzl/universal-computation, ``models/lstm.py``) starts every forward pass, also on test,
from a random state, and overwrites the gains of its layer norms, 1, with small random numbers; both weaken a frozen
LSTM. Here the state starts at zero and gains at 1, and the cell is carried on as it is, only what is read of it being
normalised (equation 22 of Ba et al.); there the normalised cell is carried on.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import ClassVar

from jaxtyping import Bool, Float
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel

from fpt_viz.backbones._places import Place
from fpt_viz.backbones.base import Backbone, Preset

__all__ = ["Lstm"]

NORM = "layer_norm"


class LstmConfig(PreTrainedConfig):
    """The sizes of an LSTM, and which parts of a transformer it has."""

    model_type = "fpt_viz_lstm"

    hidden_size: int = 768
    num_hidden_layers: int = 3
    layer_norm: bool = False
    """Of both pre-activations and of the cell that is read, each with gain and bias."""
    layer_norm_eps: float = 1e-5
    residual: bool = False
    """Whether each block adds to what it is given, instead of taking its place."""
    positions: bool = False
    """Whether learned rows, zero at the start, are added to the input."""
    dropout: float = 0.0
    """Rate on the output of each block."""


class Block(nn.Module):
    """One layer: the hidden states of an LSTM that starts from zero, added to its input where it is residual.

    The weights have the names, shapes and start of ``nn.LSTM``'s: uniform within 1 / sqrt(hidden), biases too.
    """

    def __init__(self, config: LstmConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.lstm = nn.LSTM(size, size, batch_first=True)
        self.norms = nn.ModuleDict()
        if config.layer_norm:
            for name, width in {"input": 4 * size, "hidden": 4 * size, "cell": size}.items():
                self.norms[name] = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.residual = config.residual

    def forward(self, hidden_states: Float[Tensor, "batch seq hidden"]) -> Float[Tensor, "batch seq hidden"]:
        """The block's output at every token, of that token and those before it."""
        # cuDNN has no gradient in eval mode
        plain = not self.norms and (self.training or not (hidden_states.is_cuda and torch.is_grad_enabled()))
        found: Tensor = self.dropout(self.lstm(hidden_states)[0] if plain else self._step_by_step(hidden_states))
        return hidden_states + found if self.residual else found

    def _step_by_step(self, x: Float[Tensor, "batch seq hidden"]) -> Float[Tensor, "batch seq hidden"]:
        """As ``nn.LSTM``, with the norms: no kernel has these, so tokens come one after the other."""
        input_weight, hidden_weight, input_bias, hidden_bias = self.lstm.all_weights[0]
        from_input = self._norm("input", functional.linear(x, input_weight, input_bias)).unbind(1)
        hidden = cell = x.new_zeros(x.shape[0], x.shape[2])
        found = []
        for given in from_input:
            gates = given + self._norm("hidden", functional.linear(hidden, hidden_weight, hidden_bias))
            enter, keep, new, leave = gates.chunk(4, dim=-1)  # the order of nn.LSTM's weights
            cell = keep.sigmoid() * cell + enter.sigmoid() * new.tanh()
            hidden = leave.sigmoid() * self._norm("cell", cell).tanh()
            found.append(hidden)
        return torch.stack(found, dim=1)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return torch.as_tensor(self.norms[name](x)) if self.norms else x


class LstmNetwork(PreTrainedModel):
    """Blocks one after the other."""

    config_class = LstmConfig

    def __init__(self, config: LstmConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))

    def forward(
        self, inputs_embeds: Float[Tensor, "batch seq hidden"], attention_mask: Bool[Tensor, "batch seq"] | None = None
    ) -> SimpleNamespace:
        """``last_hidden_state``. Padding comes last, so no real token ever sees it, and the mask is not needed."""
        hidden_states = inputs_embeds
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return SimpleNamespace(last_hidden_state=hidden_states)


class Lstm(Backbone):
    """An LSTM, with random weights: nobody publishes any."""

    network_class = LstmNetwork
    config_class = LstmConfig
    has_attention = False
    published = False
    attention_kernel = "eager"  # what transformers calls it; there is none
    causal = True
    blocks_path = "layers"
    vocabulary_path = None
    groups: ClassVar = {"layers.*.lstm.*": "recurrent", "layers.*.norms.*": NORM}
    block_places: ClassVar = {
        "hook_resid_pre": Place("", "input"),
        "hook_lstm_out": Place("dropout", "output"),
        "hook_resid_post": Place("", "output"),
    }
    presets: ClassVar = {
        "lstm": Preset(config={"hidden_size": 768, "num_hidden_layers": 3}),
        "lstm-norm": Preset(config={"hidden_size": 768, "num_hidden_layers": 3, "layer_norm": True}),
        "lstm-12": Preset(
            config={
                "hidden_size": 768,
                "num_hidden_layers": 12,
                "layer_norm": True,
                "residual": True,
                "positions": True,
            },
        ),
        "lstm-384": Preset(config={"hidden_size": 384, "num_hidden_layers": 3}),
        "lstm-norm-384": Preset(config={"hidden_size": 384, "num_hidden_layers": 3, "layer_norm": True}),
        "lstm-12-384": Preset(
            config={
                "hidden_size": 384,
                "num_hidden_layers": 12,
                "layer_norm": True,
                "residual": True,
                "positions": True,
            },
        ),
        "lstm-tiny-random": Preset(
            config={"hidden_size": 32, "num_hidden_layers": 3, "layer_norm": True, "residual": True, "positions": True},
        ),
    }

    @property
    def adds_positions(self) -> bool:
        """Where the preset has them: an LSTM knows the order of tokens without any."""
        return bool(self.network.config.positions)

    def _n_positions(self) -> int | None:
        return None

    @property
    def limit(self) -> str:
        """Empty: a state can be carried on for ever."""
        return ""

    def parameter_groups(self) -> dict[str, str]:
        """Those of the parts that the preset has."""
        groups = super().parameter_groups()
        return groups if self.network.config.layer_norm else {g: group for g, group in groups.items() if group != NORM}

    def _last_states(self, vectors: Tensor, mask: Tensor | None) -> Tensor:
        return torch.as_tensor(self.network(vectors).last_hidden_state)
