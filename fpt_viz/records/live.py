"""What a viewer may ask of a model that is handed to it, so that viewers never import a producer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from fpt_viz.records.attention import AttentionMaps


@runtime_checkable
class LiveModel(Protocol):
    """A model that can be run, tapped and intervened on."""

    def version(self) -> object:
        """Something that equals itself as long as no parameter was written to; costs no reading of them."""
        ...

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """The logits, ``[batch readout ...]``."""
        ...

    def run_with_cache(self, inputs: Tensor, mask: Tensor | None = None, **options: Any) -> tuple[Tensor, Any]:
        """The logits and a mapping from activation names to tensors."""
        ...

    def hooks(self, fwd_hooks: Iterable[tuple[Any, Callable[..., Any]]]) -> AbstractContextManager[Any]:
        """Functions that read or change named activations within a block."""
        ...

    def capture(self, batch: Any, **options: Any) -> AttentionMaps:
        """The attention on ``batch``."""
        ...

    def ablated(self, heads: Collection[Any], kind: Any = "zero", **options: Any) -> AbstractContextManager[Any]:
        """The model without ``heads``, each as (layer, head), within a block; options: stand_ins, donors, reference."""
        ...

    def stand_ins(self, kind: Any, **options: Any) -> Any:
        """What stands in for any head that is cut, worked out once for many blocks; options: reference, seed."""
        ...
