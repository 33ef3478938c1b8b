"""Circuits built once for the tests that only look at them, and transformers' own attention as an oracle."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache

import pytest
import torch
from torch import Tensor
from transformers import LongformerConfig, LongformerModel

from fpt_viz import testing
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.testing.writers import LAYOUTS


@pytest.fixture(scope="session")
def planted() -> Callable[[str], testing.Circuit]:
    """Builds a circuit once. Who changes its weights takes a copy of the model."""
    return lru_cache(testing.circuit)


@pytest.fixture
def eager() -> Callable[[FrozenPretrainedTransformer, Tensor], Tensor]:
    """The attention that the transformers network reports of itself, ``[layer batch head query key]``."""

    @torch.no_grad()
    def run(model: FrozenPretrainedTransformer, inputs: Tensor) -> Tensor:
        backbone = deepcopy(model.backbone)
        vectors, network = model.input(inputs), backbone.network
        if backbone.position_path is None:
            vectors = vectors + backbone.added_positions[: vectors.shape[1]]
        if backbone.provenance.family == "longformer":
            return dense(longformer_with(network.state_dict()), vectors)
        network.set_attn_implementation("eager")
        return torch.stack(network(**{backbone.inputs_name: vectors}, output_attentions=True).attentions)

    return run


def longformer_with(weights: dict[str, Tensor]) -> LongformerModel:
    """A network as transformers makes it, with ``weights``; its positions start at row 2."""
    network = LongformerModel(LongformerConfig(**LAYOUTS["longformer"].config), add_pooling_layer=False).eval()
    path = "embeddings.position_embeddings.weight"
    rows = weights.pop(path)
    assert not network.load_state_dict(weights, strict=False).unexpected_keys
    network.get_parameter(path)[2 : 2 + len(rows)] = rows
    return network


def dense(network: LongformerModel, vectors: Tensor) -> Tensor:
    """The attention of a Longformer as query by key; it reports bands whose middle is the query itself."""
    n_tokens = vectors.shape[1]
    bands = torch.stack(network(inputs_embeds=vectors, output_attentions=True).attentions)
    full = bands.new_zeros(*bands.shape[:3], n_tokens, n_tokens)
    middle = bands.shape[-1] // 2
    for query in range(n_tokens):
        for key in range(n_tokens):
            full[..., query, key] = bands[..., query, key - query + middle]
    return full
