"""Tiny models of every family, batches with padding, and the networks' own eager attention as an oracle."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import LongformerConfig, LongformerModel

from fpt_viz import registry
from fpt_viz.backbones import load_backbone
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records import Geometry
from fpt_viz.tasks import Batch, Task, load_task

LENGTHS = (8, 5, 7, 2)
"""Real tokens of each example of the padded batch."""


@dataclass(frozen=True)
class Symbols(Task):
    """Sequences of 2 to 8 symbols, 0 where padded: the last two real tokens are asked for the first two's parity."""

    @property
    def n_tokens(self) -> int:
        return max(LENGTHS)

    @property
    def n_values(self) -> None:
        return None

    @property
    def n_symbols(self) -> int:
        return 6

    @property
    def n_readout(self) -> int:
        return 2

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (2,)

    def sample(self, batch_size: int, rng: torch.Generator, split: str = "train") -> Batch:
        lengths = torch.randint(2, self.n_tokens + 1, (batch_size,), generator=rng)
        return self.batch(torch.randint(1, self.n_symbols, (batch_size, self.n_tokens), generator=rng), lengths)

    def batch(self, symbols: Tensor, lengths: Tensor) -> Batch:
        mask = torch.arange(self.n_tokens) < lengths[:, None]
        return Batch(symbols * mask, symbols[:, :2] % 2, mask)

    def distinct(self, n_examples: int, split: str, seed: int = 0) -> Batch:
        return self.sample(n_examples, torch.Generator().manual_seed(seed), split)

    def n_examples(self, split: str) -> None:
        return None

    def labels(self, inputs: Tensor) -> list[str]:
        return [f"t{i}={int(symbol)}" for i, symbol in enumerate(inputs)]

    def token_names(self) -> tuple[str, ...]:
        return tuple(f"t{i}" for i in range(self.n_tokens))

    def geometry(self) -> Geometry:
        return Geometry(groups=("t",), group=(0,) * self.n_tokens, position=tuple(range(self.n_tokens)))

    def needs(self, inputs: Tensor) -> Tensor:
        """Of an example of n real tokens, n - 2 needs token 0 and n - 1 needs token 1."""
        needs = torch.zeros(*inputs.shape, inputs.shape[1], dtype=torch.bool)
        for example, n_real in enumerate((inputs > 0).sum(1).tolist()):
            needs[example, n_real - 2, 0] = needs[example, n_real - 1, 1] = True
        return needs


class Eager(NamedTuple):
    """What the transformers network itself says under its eager kernel."""

    attentions: Tensor
    """``[layer batch head query key]``."""
    hidden_states: tuple[Tensor, ...]
    """The input of each block, then the network's output."""


WITH_ATTENTION = [name for name in registry.names("backbones") if registry.load("backbones", name).has_attention]


@pytest.fixture(params=WITH_ATTENTION)
def family(request: pytest.FixtureRequest) -> str:
    """Each family of backbones that has attention in turn; tests that ask nothing of heads may take all instead."""
    return str(request.param)


@pytest.fixture
def tiny() -> Callable[..., FrozenPretrainedTransformer]:
    """Makes a tiny random model in eval mode: ``tiny(family, task, **options)``."""

    def made(family: str = "bert", task: Task | None = None, *, seed: int = 0, kernel: str = "sdpa", **options: Any):
        backbone = load_backbone(f"{family}-tiny-random", "random", options.pop("n_layers", None), seed=seed)
        model = FrozenPretrainedTransformer(
            backbone, task or load_task("bit_xor", n_bits=3), seed=seed, **options
        ).eval()
        if family != "longformer" and backbone.has_attention:  # which has one kernel alone
            model.backbone.network.set_attn_implementation(kernel)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():  # at their start, norms and added positions are ones and zeros, which hide mistakes
            for name, parameter in model.named_parameters():
                if name.startswith("backbone."):
                    parameter += torch.randn(parameter.shape, generator=generator) * 0.1
        return model

    return made


@pytest.fixture
def padded() -> Batch:
    """Four examples of :class:`Symbols`, of 8, 5, 7 and 2 real tokens."""
    symbols = torch.randint(1, 6, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(1))
    return Symbols().batch(symbols, torch.tensor(LENGTHS))


@pytest.fixture
def symbols() -> Task:
    """The task that :func:`padded` is of."""
    return Symbols()


@pytest.fixture
def eager() -> Callable[[FrozenPretrainedTransformer, Batch], Eager]:
    """Runs a copy of the model's transformers network under its eager kernel."""

    @torch.no_grad()
    def run(model: FrozenPretrainedTransformer, batch: Batch) -> Eager:
        model = deepcopy(model).eval()
        backbone, vectors = model.backbone, model.input(batch.inputs)
        if backbone.position_path is None:
            vectors = vectors + backbone.added_positions[: vectors.shape[1]]
        network = backbone.network
        if backbone.provenance.family == "longformer":
            network = longformer_with(network.state_dict())
        network.set_attn_implementation("eager")
        found = network(
            **{backbone.inputs_name: vectors},
            attention_mask=batch.mask,
            output_attentions=True,
            output_hidden_states=True,
        )
        attentions = torch.stack(found.attentions)
        if backbone.provenance.family == "longformer":
            attentions = dense(attentions, vectors.shape[1])
        return Eager(attentions, tuple(found.hidden_states))

    return run


def longformer_with(weights: dict[str, Tensor]) -> LongformerModel:
    """A tiny network as transformers makes it, with ``weights``; its positions start at row 2, as everywhere."""
    preset = registry.load("backbones", "longformer").presets["longformer-tiny-random"]
    network = LongformerModel(LongformerConfig(**preset.config), add_pooling_layer=False).eval()
    path = "embeddings.position_embeddings.weight"
    rows = weights.pop(path)
    told = network.load_state_dict(weights, strict=False)
    assert not told.unexpected_keys
    assert set(told.missing_keys) == {
        path,
        "embeddings.word_embeddings.weight",
        *(name for name, _ in network.named_parameters() if "_global." in name),
    }
    network.get_parameter(path)[2 : 2 + len(rows)] = rows
    return network


def dense(bands: Tensor, n_tokens: int) -> Tensor:
    """Longformer's ``[layer batch head query window]``, whose middle is the query itself, as query by key."""
    reach = bands.shape[-1] // 2
    full = bands.new_zeros(*bands.shape[:-1], n_tokens)
    for query in range(n_tokens):
        for key in range(max(query - reach, 0), min(query + reach + 1, n_tokens)):
            full[..., query, key] = bands[..., query, key - query + reach]
    return full
