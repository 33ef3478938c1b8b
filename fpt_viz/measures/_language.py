"""A network that reads words again, as it did before its vocabulary was taken away, and a text for it to read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float, Int
import torch
from torch import Tensor, nn

from fpt_viz.backbones import Backbone, load_backbone, load_tokenizer
from fpt_viz.errors import ConfigError
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.tasks import Batch, Task

TEXT_NAME = "Alice's Adventures in Wonderland, the beginning"
"""Lewis Carroll (1832 to 1898), 1865, chapter I; in the public domain. 949 words, without italics."""
_PATH = Path(__file__).parent / "_texts" / "alice_1865.txt"


def usual_text() -> str:
    """The text that is read unless another one is given."""
    return _PATH.read_text(encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """A text in pieces of one length, each between the special tokens that the network knows."""

    tokens: Int[Tensor, "piece token"]
    special: Bool[Tensor, "piece token"]
    punctuation: Bool[Tensor, "piece token"]
    """Tokens without a letter or digit."""

    @classmethod
    def of(cls, text: str, tokenizer: Any, n_tokens: int) -> Pieces:
        """``text`` cut into pieces of ``n_tokens``; what is left at its end is dropped.

        Raises:
            ConfigError: The text is shorter than one piece, or a piece has no room for words.
        """
        around = tokenizer.encode("a")
        first_word = around.special_tokens_mask.index(0)
        last_word = len(around.ids) - around.special_tokens_mask[::-1].index(0)
        before, after = around.ids[:first_word], around.ids[last_word:]
        size = n_tokens - len(before) - len(after)
        words = tokenizer.encode(text, add_special_tokens=False).ids
        if size < 2 or len(words) < size:
            raise ConfigError(
                f"a text of {len(words)} tokens makes no piece of {n_tokens} with {len(before) + len(after)} special "
                "ones among them: choose a longer text or another n_tokens, at least 4"
            )
        starts = range(0, len(words) - size + 1, size)
        tokens = torch.tensor([[*before, *words[start : start + size], *after] for start in starts])
        special = torch.ones_like(tokens, dtype=torch.bool)
        special[:, len(before) : len(before) + size] = False
        texts = {token: tokenizer.decode([token]) for token in set(tokens.flatten().tolist())}
        plain = [[not any(map(str.isalnum, texts[token])) for token in row] for row in tokens.tolist()]
        return cls(tokens=tokens, special=special, punctuation=torch.tensor(plain) & ~special)


class Reader(nn.Module):
    """A backbone with its own token embeddings, positions and norms: the network as it was before any training of ours.

    What the tap enters. It reads nothing out.
    """

    def __init__(self, backbone: Backbone, task: Task, n_tokens: int) -> None:
        """Take over ``backbone``, which was loaded with its vocabulary; ``task`` is what the tap asks for its name."""
        super().__init__()
        if backbone.n_ctx is not None and n_tokens > backbone.n_ctx:
            raise ConfigError(f"{backbone.provenance.name} has positions for {backbone.n_ctx} tokens, got {n_tokens}")
        backbone.fit_positions(n_tokens)
        self.backbone, self.task = backbone, task

    def forward(
        self, inputs: Int[Tensor, "batch token"], mask: Bool[Tensor, "batch token"] | None = None
    ) -> Float[Tensor, "batch token hidden"]:
        """The last hidden states of the tokens ``inputs``."""
        vocabulary = self.backbone.vocabulary
        assert vocabulary is not None  # loaded with it
        return torch.as_tensor(self.backbone(vocabulary[inputs], mask))

    def readout_tokens(self, n_tokens: int, mask: Tensor | None = None) -> Int[Tensor, "batch readout"]:
        """Every token; no padding is read."""
        return torch.arange(n_tokens)[None]

    @property
    def source(self) -> dict[str, Any]:
        """What a record taken from this network says of where it comes from."""
        provenance = self.backbone.provenance
        return {"backbone": provenance.name, "init": provenance.init}


def reader_of(model: FrozenPretrainedTransformer, n_tokens: int, *, seed: int) -> Reader:
    """The network of ``model`` as it came, its vocabulary included; its frozen tensors are compared with the model's.

    Raises:
        ConfigError: The network never read words, or is another than the model's.
        SourceError: Its weights are missing.
    """
    backbone = load_backbone(
        _name(model), model.backbone.provenance.init, model.backbone.n_layers, seed=seed, vocabulary=True
    )
    frozen = {name: value for name, value in model.backbone.named_parameters() if not value.requires_grad}
    for name, value in backbone.named_parameters():
        if name in frozen and not torch.equal(frozen[name].detach().cpu(), value.detach()):
            raise ConfigError(
                f"{name} of {backbone.provenance.name} ({backbone.provenance.init}, seed {seed}) is not what this "
                "model was built from, so its heads are others: give the network_seed that it was drawn with"
            )
    return Reader(backbone, model.task, n_tokens)


def random_reader_of(model: FrozenPretrainedTransformer, n_tokens: int, *, seed: int) -> Reader:
    """The same architecture with random weights and random token embeddings."""
    backbone = load_backbone(_name(model), "random", model.backbone.n_layers, seed=seed, vocabulary=True)
    return Reader(backbone, model.task, n_tokens)


def pieces_for(model: FrozenPretrainedTransformer, text: str, n_tokens: int) -> Pieces:
    """``text`` through the tokenizer that the network of ``model`` was trained with."""
    provenance = model.backbone.provenance
    return Pieces.of(text, load_tokenizer(provenance.name, revision=provenance.revision), n_tokens)


def batches_of(pieces: Pieces, batch_size: int) -> list[tuple[Batch, slice]]:
    """The pieces as batches for the tap, each with its place."""
    found = []
    for start in range(0, len(pieces.tokens), batch_size):
        here = slice(start, start + batch_size)
        tokens = pieces.tokens[here]
        found.append((Batch(tokens, torch.zeros(len(tokens), dtype=torch.long)), here))
    return found


def _name(model: FrozenPretrainedTransformer) -> str:
    """The name of the model's backbone at the commit that it was read at."""
    provenance = model.backbone.provenance
    return f"{provenance.name.partition('@')[0]}@{provenance.revision}" if provenance.revision else provenance.name
