"""The soil of a circuit: a small model of a family, of which every weight is known."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
import torch
from torch import Tensor, nn

from fpt_viz.errors import ConfigError
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.records.parts import Head
from fpt_viz.tasks import Task
from fpt_viz.testing.features import Features
from fpt_viz.testing.verdicts import every_head
from fpt_viz.testing.writers import Writer, small_backbone

ONE = 6.0
"""Size of the constant feature. It dwarfs the rest of a token, so a norm divides all tokens by nearly the same."""
SHARP = 14.0
"""Score of the wanted key over the others: e^-14 of the attention goes elsewhere."""
CONFIDENCE = 5.0
"""Logit of the right class for a feature of 1; the wrong one's is its negative."""
BYSTANDER_QK, BYSTANDER_V, BYSTANDER_O = 0.4, 0.3, 0.05
"""Scale of the weights of the heads that do nothing: some pattern, some values, and a little noise that none reads."""


class Plant:
    """A model whose tokens hold, in features of their own, the constant, what is shown, and their place.

    Heads and MLPs are added to it; :meth:`bystanders` fills the rest of the heads. Everything else is zero.
    """

    def __init__(self, family: str, task: Task, *, seed: int, **sizes: int) -> None:
        """Build the model; ``sizes`` are further groups of features."""
        assert task.n_values is not None  # the planted tasks show values
        self.task, self.seed = task, seed
        self.model = FrozenPretrainedTransformer(small_backbone(family, seed=seed), task, seed=seed).eval()
        for parameter in self.model.parameters():
            nn.init.zeros_(parameter)
        backbone = self.model.backbone
        shown = {"one": 1, "shown": task.n_values, "place": task.n_tokens}
        self.features = Features(backbone.d_model, shown | sizes, seed=seed)
        self.writer = Writer(backbone)
        self.writer.norms(((ONE**2 + task.n_values + 1) / backbone.d_model) ** 0.5)
        self.writer.positions(self.features["place"])
        self._written: set[Head] = set()
        with torch.no_grad():
            self.model.input.weight.copy_(self.features["shown"].T)
            assert isinstance(self.model.input.bias, Tensor)  # a linear layer, since the task shows values
            self.model.input.bias.copy_(ONE * self.features["one"][0])

    @property
    def one(self) -> Float[Tensor, " hidden"]:
        """Reads 1 from every token."""
        return self.features["one"][0] / ONE

    def head(
        self, at: Head, look: tuple[Tensor, Tensor], *, value: Tensor, out: Tensor | None, shares_keys: bool = False
    ) -> None:
        """Write a head: its query and key rows, what it reads, and the features (as rows) that it writes, or none."""
        query, key = look
        written = value.new_zeros(value.shape[1], len(value)) if out is None else out.T
        self._written.add(at)
        self.writer.head(*at, query=query, key=key, value=value, out=written, shares_keys=shares_keys)

    def by_place(self, targets: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Query and key rows by which each token looks at the token that ``targets`` gives."""
        if self.model.backbone.causal and any(target > token for token, target in enumerate(targets)):
            raise ConfigError(f"a causal model cannot look ahead: {list(targets)}")
        place = self.features["place"]
        wanted = torch.zeros(len(targets), len(targets))
        wanted[list(targets), range(len(targets))] = SHARP
        return wanted @ place, place

    def exclusive_or(self, layer: int, first: Tensor, second: Tensor) -> None:
        """Let an MLP write the product of the signs of two features that are read, as long as both are 1 or more.

        By |a + b| - |a - b|, which is twice the smaller of the two, so that a feature of 2 says no more than one of 1.
        """
        units = torch.stack([first + second, -first - second, first - second, second - first])
        out = torch.tensor([[0.5, 0.5, -0.5, -0.5]])
        self.writer.mlp(layer, units=units, out=self.features["answer"].T @ out, one=self.one)

    @torch.no_grad()
    def read_out(self, rows: Float[Tensor, "answer hidden"]) -> None:
        """Let each of ``rows`` decide between two classes: the second where it reads more than 0."""
        self.model.output.weight.copy_(CONFIDENCE * torch.stack([-rows, rows], dim=1).flatten(0, 1))

    def bystanders(self) -> None:
        """Give every other head random weights; what they write, nothing reads."""
        rng = torch.Generator().manual_seed(self.seed)
        seen, junk = self.features.without("one", "junk"), self.features["junk"]
        for at in every_head(self.model):
            if at in self._written:
                continue
            query, key, value = (scale * torch.randn(8, len(seen), generator=rng) @ seen
                                 for scale in (BYSTANDER_QK, BYSTANDER_QK, BYSTANDER_V))  # fmt: skip
            out = BYSTANDER_O * torch.randn(8, len(junk), generator=rng) @ junk
            self.head(at, (query, key), value=value, out=out, shares_keys=True)


def random_model(family: str, task: Task, *, seed: int = 0) -> FrozenPretrainedTransformer:
    """A model of the same size with nothing planted, for a control: no method may find anything in it."""
    return FrozenPretrainedTransformer(small_backbone(family, seed=seed), task, seed=seed).eval()
