"""How the weights of a known head or MLP are written into each family's own modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from jaxtyping import Float
import torch
from torch import Tensor, nn

from fpt_viz import registry
from fpt_viz.backbones.base import Backbone, Provenance
from fpt_viz.errors import ConfigError, UnknownNameError

D_MODEL, N_LAYERS, N_HEADS, D_HEAD = 64, 3, 4, 16
SHARPNESS = 8.0
"""Input of an MLP's unit for a feature of 1: far enough out for GELU and SiLU to be as good as a ReLU."""
SLOWEST = 1e32
"""Base of the rotary angles: only the first pair of a head's dimensions turns by more than 0.002 over 16 tokens."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a family keeps the matrices of a block, and what its architecture does with them."""

    config: Mapping[str, Any]
    """Of a network of 3 layers x 4 heads, 64 wide."""
    query: str
    key: str
    value: str
    out: str
    up: str
    down: str
    gate: str = ""
    """Of the MLP, where its units are gated: SiLU(gate) * up."""
    divides_scores: bool = True
    """Whether the scores are divided by the square root of the head's width."""
    turned: tuple[int, ...] = ()
    """Dimensions of a head that rotary positions turn, so that nothing is written there."""


LAYOUTS: Mapping[str, Layout] = {
    "bert": Layout(
        config={"vocab_size": 8, "hidden_size": D_MODEL, "num_hidden_layers": N_LAYERS, "num_attention_heads": N_HEADS,
                "intermediate_size": 64, "max_position_embeddings": 32},
        query="attention.self.query", key="attention.self.key", value="attention.self.value",
        out="attention.output.dense", up="intermediate.dense", down="output.dense",
    ),
    "gpt2": Layout(
        config={"vocab_size": 8, "n_embd": D_MODEL, "n_layer": N_LAYERS, "n_head": N_HEADS, "n_inner": 64,
                "n_positions": 32, "bos_token_id": None, "eos_token_id": None},
        query="attn.c_attn", key="attn.c_attn", value="attn.c_attn", out="attn.c_proj", up="mlp.c_fc",
        down="mlp.c_proj",
    ),
    "llama": Layout(
        config={"vocab_size": 8, "hidden_size": D_MODEL, "num_hidden_layers": N_LAYERS, "num_attention_heads": N_HEADS,
                "num_key_value_heads": 2, "head_dim": D_HEAD, "intermediate_size": 64, "max_position_embeddings": 32,
                "rope_parameters": {"rope_type": "default", "rope_theta": SLOWEST}},
        query="self_attn.q_proj", key="self_attn.k_proj", value="self_attn.v_proj", out="self_attn.o_proj",
        up="mlp.up_proj", gate="mlp.gate_proj", down="mlp.down_proj", turned=(0, D_HEAD // 2),
    ),
    "longformer": Layout(
        config={"vocab_size": 8, "hidden_size": D_MODEL, "num_hidden_layers": N_LAYERS, "num_attention_heads": N_HEADS,
                "intermediate_size": 64, "max_position_embeddings": 34, "attention_window": 16},
        query="attention.self.query", key="attention.self.key", value="attention.self.value",
        out="attention.output.dense", up="intermediate.dense", down="output.dense",
    ),
    "t5": Layout(
        config={"vocab_size": 8, "d_model": D_MODEL, "num_layers": N_LAYERS, "num_heads": N_HEADS, "d_kv": D_HEAD,
                "d_ff": 64},
        query="layer.0.SelfAttention.q", key="layer.0.SelfAttention.k", value="layer.0.SelfAttention.v",
        out="layer.0.SelfAttention.o", up="layer.1.DenseReluDense.wi", down="layer.1.DenseReluDense.wo",
        divides_scores=False,
    ),
    "vit": Layout(
        config={"hidden_size": D_MODEL, "num_hidden_layers": N_LAYERS, "num_attention_heads": N_HEADS,
                "intermediate_size": 64, "image_size": 16, "patch_size": 4},
        query="attention.q_proj", key="attention.k_proj", value="attention.v_proj", out="attention.o_proj",
        up="mlp.fc1", down="mlp.fc2",
    ),
}  # fmt: skip
"""By family, in the order of the tables."""


def small_backbone(family: str, *, seed: int) -> Backbone:
    """A random backbone of ``family``, 3 layers x 4 heads, 64 wide, such as circuits are planted in."""
    if family not in LAYOUTS:
        raise UnknownNameError("family with planted circuits", family, LAYOUTS)
    kind = registry.load("backbones", family)
    config = kind.config_class(**LAYOUTS[family].config)
    config._attn_implementation = kind.attention_kernel
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = kind.network_class(config, **kind.network_options)
    backbone: Backbone = kind(network, Provenance(name=f"{family}-small", init="random", family=family))
    return backbone


class Writer:
    """Writes heads, MLPs, norms and positions into a backbone whose weights are zero."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.layout = LAYOUTS[backbone.provenance.family]
        self._planted: dict[tuple[int, int], int] = {}
        """Of the key-value heads that are written, by layer, the head that they were written for."""

    @torch.no_grad()
    def norms(self, gain: float) -> None:
        """Let every norm give its output a root mean square of ``gain``, with no offset."""
        groups = self.backbone.parameter_groups()
        for name, parameter in self.backbone.named_parameters():
            if any(group == "layer_norm" and fnmatchcase(name, glob) for glob, group in groups.items()):
                parameter.fill_(gain if name.endswith("weight") else 0.0)

    @torch.no_grad()
    def positions(self, rows: Float[Tensor, "token hidden"]) -> None:
        """What is added to each token for its place."""
        path = self.backbone.position_path
        if path is None:
            self.backbone.added_positions.copy_(rows)
        else:
            table = self.backbone.network.get_submodule(path).weight
            assert isinstance(table, Tensor)
            table[: len(rows)] = rows

    @torch.no_grad()
    def head(
        self,
        layer: int,
        head: int,
        *,
        query: Float[Tensor, "rank hidden"],
        key: Float[Tensor, "rank hidden"],
        value: Float[Tensor, "feature hidden"],
        out: Float[Tensor, "hidden feature"],
        shares_keys: bool = False,
    ) -> None:
        """Let a head score a key token y for a query token x by (query @ x) . (key @ y), and write out @ value @ y.

        Args:
            layer: Zero-based.
            head: Zero-based.
            query: One row a dimension of the head.
            key: As many rows.
            value: Read from the key token.
            out: Written at the query token.
            shares_keys: Leave keys and values as they are where another head has written those of the group.

        Raises:
            ConfigError: It is too wide for a head, or another head of its group has other keys and values.
        """
        width = self.backbone.d_head
        slots = [slot for slot in range(width) if slot not in self.layout.turned]
        if max(len(query), len(value)) > len(slots):
            raise ConfigError(f"a head of {max(len(query), len(value))} dimensions does not fit into {len(slots)}")
        group = head * self.backbone.n_kv_heads // self.backbone.n_heads
        scale = width**0.5 if self.layout.divides_scores else 1.0
        layout = self.layout
        self._rows(layer, layout.query, 0)[head * width : (head + 1) * width] = _at(slots, query * scale, width)
        self._rows(layer, layout.out, -1)[:, head * width : (head + 1) * width] = _at(slots, out.T, width).T
        if (layer, group) in self._planted:
            if not shares_keys:
                raise ConfigError(f"head {self._planted[layer, group]} of layer {layer} has the keys of head {head}")
            return
        self._planted[layer, group] = head
        self._rows(layer, layout.key, 1)[group * width : (group + 1) * width] = _at(slots, key, width)
        self._rows(layer, layout.value, 2)[group * width : (group + 1) * width] = _at(slots, value, width)

    @torch.no_grad()
    def mlp(
        self,
        layer: int,
        *,
        units: Float[Tensor, "unit hidden"],
        out: Float[Tensor, "hidden unit"],
        one: Float[Tensor, " hidden"],
    ) -> None:
        """Let an MLP add out @ relu(units @ x).

        Args:
            layer: Zero-based.
            units: What each unit reads.
            out: What each writes.
            one: Reads 1 from every token, for a gated MLP.
        """
        n_units, layout = len(units), self.layout
        self._rows(layer, layout.gate or layout.up, -1)[:n_units] = units * SHARPNESS
        if layout.gate:
            self._rows(layer, layout.up, -1)[:n_units] = one
        self._rows(layer, layout.down, -1)[:, :n_units] = out / SHARPNESS

    def _rows(self, layer: int, path: str, third: int) -> Float[Tensor, "out in"]:
        """The matrix at ``path``, as [out in]; where queries, keys and values are one matrix, its part ``third``."""
        module = self.backbone.blocks[layer].get_submodule(path)
        weight = module.weight
        assert isinstance(weight, Tensor)
        rows = weight if isinstance(module, nn.Linear) else weight.T  # GPT-2's Conv1D keeps [in out]
        fused = self.layout.query == self.layout.key
        return rows.unflatten(0, (3, -1))[third] if fused and third >= 0 else rows


def _at(slots: list[int], rows: Float[Tensor, "row hidden"], width: int) -> Float[Tensor, "width hidden"]:
    """``rows`` in the first of ``slots``, and zero elsewhere."""
    placed = rows.new_zeros(width, rows.shape[1])
    placed[slots[: len(rows)]] = rows
    return placed
