"""What every backbone is: a pretrained network without its vocabulary, with named places, groups and provenance.

Added by a family's file: which network class, its presets, which parameters form which group, and where the
activations lie that a tap can read or change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from jaxtyping import Bool, Float, Int
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fpt_viz.backbones._fused import fuse
from fpt_viz.backbones._narrow import Narrowed
from fpt_viz.backbones._places import Place, norm
from fpt_viz.backbones._positions import WithPositions, assign
from fpt_viz.backbones._provenance import Preset, Provenance
from fpt_viz.errors import CaptureError, ConfigError

__all__ = ["Backbone", "Preset", "Provenance", "assign"]


class Backbone(WithPositions):
    """A transformer that takes vectors in and gives vectors out. A model that is built on it trains it in place."""

    presets: ClassVar[Mapping[str, Preset]]
    network_class: ClassVar[type[PreTrainedModel]]
    config_class: ClassVar[type[PreTrainedConfig]]
    groups: ClassVar[Mapping[str, str]]
    """Glob over the network's parameter names -> group; each parameter matches globs of one group."""
    has_attention: ClassVar[bool] = True
    """Whether heads mix the tokens; where not, whatever is asked of a head is a :class:`CaptureError`."""
    published: ClassVar[bool] = True
    """Whether anybody publishes weights of the architecture; where not, it has presets alone."""
    causal: ClassVar[bool]
    rotary: ClassVar[bool] = False
    """Positions are added by rotating queries and keys, so learned rows are new and start at zero."""
    network_options: ClassVar[Mapping[str, Any]] = {}
    """Further arguments of ``network_class``."""
    attention_kernel: ClassVar[str] = "sdpa"
    """What transformers calls the kernel that runs where nothing is tapped."""
    inputs_name: ClassVar[str] = "inputs_embeds"
    """The argument of the network that takes vectors."""
    blocks_path: ClassVar[str]
    """Path of the list of blocks below the network."""
    attention_path: ClassVar[str]
    """Path, below a block, of the module that calls the attention kernel."""
    attention_dropout: ClassVar[str] = ""
    """The attribute of that module that is the dropout rate of the pattern; empty where it is an ``nn.Dropout``."""
    projection_path: ClassVar[str]
    """Path, below a block, of the output projection, which reads z."""
    tail_path: ClassVar[str | None] = None
    """Path, below a block, of the module from which on no token sees another: in post-LN families the output of
    attention, which takes it with the residual stream; in pre-LN ones the feed-forward half, which is added to it. None
    where the block cannot go on with fewer tokens."""
    vocabulary_path: ClassVar[str | None]
    """Path of the token embedding, which the input layer replaces; None where the network never had one."""
    embedding_norm_path: ClassVar[str | None] = None
    """Path of the norm over the sum of tokens and positions, where there is one."""
    final_norm_path: ClassVar[str | None] = None
    """Path of the norm after the last block; None where each block ends in its own (post-LN)."""
    block_places: ClassVar[Mapping[str, Place]]
    """Activation name (as in TransformerLens, without ``blocks.{i}.``) -> where it lies in a block, in the order in
    which a block computes them."""

    def __init__(self, network: PreTrainedModel, provenance: Provenance, *, vocabulary: bool = False) -> None:
        super().__init__()
        config = network.config
        self.provenance = provenance
        self.vocabulary = self._vocabulary_of(network) if vocabulary else None
        """The token embeddings, ``[token hidden]``; None unless they were asked for. No parameter: nothing trains them.
        """
        self.token_rms = self._token_rms(network)
        """Root mean square of the token embeddings: the scale of input that the network knows."""
        self.n_layers: int = config.num_hidden_layers
        self.d_model: int = config.hidden_size
        if self.has_attention:
            self.n_heads: int = config.num_attention_heads
            self.n_kv_heads: int = getattr(config, "num_key_value_heads", None) or self.n_heads
            self.d_head: int = getattr(config, "head_dim", None) or self.d_model // self.n_heads
        self.known_rows = None
        self._strip(network)
        fuse(network)
        self.network = network
        self.added_rows = nn.Identity()
        """Where the positions that are added to the input pass by, for the tap; unused where the network has its own.
        """
        self.n_ctx = self._n_positions()
        self.owner: str | None = None
        """The task of the model that trains this backbone, once there is one."""

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        """What a family without attention lacks is an error that says so."""
        if name in OF_HEADS and not self.has_attention:
            raise self.no_attention()
        return super().__getattr__(name)

    def no_attention(self) -> CaptureError:
        """The error that there is nothing of the kind to look at, in a family without attention."""
        return CaptureError(
            f"{self.provenance.name} has no attention: it has no heads to capture, rank, cut or patch; its activations "
            f"are {', '.join(dict.fromkeys(name.rpartition('.')[2] for name in self.places))}, and accuracies compare"
        )

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks, first to last."""
        return list(self.network.get_submodule(self.blocks_path).children())

    @property
    def attentions(self) -> list[nn.Module]:
        """Of each block, the module that calls the attention kernel."""
        return [block.get_submodule(self.attention_path) for block in self.blocks]

    def projection(self, layer: int) -> Float[Tensor, "head d_head hidden"]:
        """W_O of ``layer``: what each head's z is multiplied by; the bias is not in it."""
        module = self.blocks[layer].get_submodule(self.projection_path)
        weight = module.weight
        assert isinstance(weight, Tensor)
        weight = weight if isinstance(module, Conv1D) else weight.T  # a Conv1D's is [in, out] already
        return torch.as_tensor(weight.unflatten(0, (self.n_heads, -1)))

    @property
    def reach(self) -> int | None:
        """How many tokens to either side a query may look; None where it sees all that ``causal`` lets it see."""
        return None

    def final_norm(self) -> nn.Module | None:
        """The norm after the last block; None where each block ends in its own (post-LN)."""
        return None if self.final_norm_path is None else self.network.get_submodule(self.final_norm_path)

    @property
    def places(self) -> Mapping[str, Place]:
        """Activation name, without ``blocks.{i}.`` -> where it lies below a block."""
        return self.block_places

    @property
    def outer_places(self) -> dict[str, Place]:
        """Activation name -> where it lies below this module, of those outside the blocks."""
        rows = "added_rows" if self.position_path is None else f"network.{self.position_path}"
        places = {"hook_pos_embed": Place(rows, "rows")} if self.position_path or self.adds_positions else {}
        for name, path in (("embed.ln", self.embedding_norm_path), ("ln_final", self.final_norm_path)):
            places |= norm(name, f"network.{path}") if path else {}
        return places

    def _token_rms(self, network: PreTrainedModel) -> float:
        if self.vocabulary_path is None:
            return 1.0
        vocabulary = network.get_submodule(self.vocabulary_path)
        assert isinstance(vocabulary, nn.Embedding)  # by the family's vocabulary_path
        return float(vocabulary.weight.detach().float().pow(2).mean().sqrt())

    def _vocabulary_of(self, network: PreTrainedModel) -> Tensor:
        vocabulary = None if self.vocabulary_path is None else network.get_submodule(self.vocabulary_path)
        if not isinstance(vocabulary, nn.Embedding):
            raise ConfigError(f"{self.provenance.name} was not trained on words: it has no token embeddings to keep")
        return vocabulary.weight.detach().float()

    def _strip(self, network: PreTrainedModel) -> None:
        """Take out of ``network`` what is never read, since inputs are vectors."""
        if self.vocabulary_path is not None:
            assign(network, self.vocabulary_path, None)

    @classmethod
    def set_depth(cls, config: PreTrainedConfig, n_layers: int) -> None:
        """Let ``config`` describe the first ``n_layers`` blocks, or so many where it describes fewer."""
        config.num_hidden_layers = n_layers

    def parameter_groups(self) -> dict[str, str]:
        """Glob over this module's parameter names -> group."""
        groups = {f"network.{glob}": group for glob, group in self.groups.items()}
        if self.provenance.positions_new:
            table = f"network.{self.position_path}"
            groups = {glob: group for glob, group in groups.items() if not fnmatchcase(f"{table}.weight", glob)}
            return groups | {f"{table}.old": "position", f"{table}.new": "new_position"}
        return groups | ({"added_positions": "position"} if self.adds_positions else {})

    def layer_of(self, name: str) -> int | None:
        """The layer that the parameter ``name`` of this module belongs to; None where it belongs to none."""
        prefix = f"network.{self.blocks_path}."
        return int(name.removeprefix(prefix).split(".")[0]) if name.startswith(prefix) else None

    def set_dropout(self, rate: float) -> None:
        """Set every dropout rate of the network, in hidden states and attention."""
        for module in self.network.modules():
            if isinstance(module, nn.Dropout):
                module.p = rate
        if self.attention_dropout:
            for attention in self.attentions:
                setattr(attention, self.attention_dropout, rate)

    def narrow(self, rows: Int[Tensor, "_ readout"], undo: ExitStack) -> bool:
        """Let the last block compute what follows its attention for the tokens ``rows`` alone, until ``undo`` closes.

        Args:
            rows: Of each example, or one row for all.
            undo: What takes the hooks away again.

        Returns:
            Whether :meth:`forward` then returns the states of ``rows`` alone, ``[batch readout hidden]``; else it
            returns all tokens, and only those of ``rows`` are right.
        """
        if self.tail_path is None:
            return False
        tail, narrowed = self.blocks[-1].get_submodule(self.tail_path), Narrowed(rows)
        undo.callback(tail.register_forward_pre_hook(narrowed.take).remove)
        if self.final_norm_path is None:
            return True
        undo.callback(tail.register_forward_hook(narrowed.put).remove)
        return False

    def checkpoint_blocks(self, *, on: bool) -> None:
        """Keep of each block its input alone for the backward pass, which computes the rest again; or all, as before.

        Raises:
            ConfigError: The family cannot.
        """
        if not self.network.supports_gradient_checkpointing:
            if on:
                raise ConfigError(
                    f"{self.provenance.name} cannot compute its blocks again: leave out train.checkpoint_blocks"
                )
        elif on:
            _renamed(self.network, "checkpointing_enable")({"use_reentrant": False})
        elif any(getattr(block, "gradient_checkpointing", False) for block in self.network.modules()):
            _renamed(self.network, "checkpointing_disable")()

    def skip_block(self, hidden_states: Tensor, *_args: Any, **_options: Any) -> Any:
        """What a block returns that does nothing; takes what a block takes."""
        return hidden_states

    def seen(
        self, vectors: Float[Tensor, "batch seq hidden"], mask: Bool[Tensor, "batch seq"] | None
    ) -> Bool[Tensor, "batch seq"] | Bool[Tensor, "_ 1 seq seq"] | None:
        """What :meth:`forward` is to be given for ``mask``, so that no number is read on the way.

        From a mask of tokens, transformers makes one of queries and keys, and reads whether anything is padded or
        packed, which on a GPU is a wait. Long causal sequences without padding stay as they are: there torch's kernels
        leave out what is masked, which is worth more than the wait.
        """
        n_tokens = vectors.shape[1]
        if self.attention_kernel != "sdpa" or (mask is None and (not self.causal or n_tokens > PAIR_TOKENS)):
            return mask
        pairs = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=vectors.device)[None, None]
        pairs = pairs.tril() if self.causal else pairs
        return pairs if mask is None else pairs & mask[:, None, None].bool()

    def forward(
        self,
        vectors: Float[Tensor, "batch seq hidden"],
        mask: Bool[Tensor, "batch seq"] | Bool[Tensor, "_ 1 seq seq"] | None = None,
    ) -> Float[Tensor, "batch row hidden"]:
        """The last hidden state, of every token unless :meth:`narrow` says otherwise.

        Tokens where ``mask`` is False are never attended to. Or it says of each query which keys it sees, as
        :meth:`seen` makes it.
        """
        if self.adds_positions:
            vectors = vectors + self.added_rows(self.added_positions[: vectors.shape[1]])
        return self._last_states(vectors, mask)

    def _last_states(self, vectors: Tensor, mask: Tensor | None) -> Tensor:
        found = self.network(**{self.inputs_name: vectors}, attention_mask=mask, **self._call_options())
        return torch.as_tensor(found.last_hidden_state)

    def _call_options(self) -> dict[str, Any]:
        return {"use_cache": False} if self.causal else {}


def _renamed(network: PreTrainedModel, name: str) -> Callable[..., None]:
    """The method that transformers calls ``activation_...``, and called ``gradient_...`` before."""
    found: Callable[..., None] = getattr(network, f"activation_{name}", None) or getattr(network, f"gradient_{name}")
    return found


PAIR_TOKENS = 512
"""Tokens up to which causal attention is given its mask, where it could go without."""
OF_HEADS = frozenset({"n_heads", "n_kv_heads", "d_head", "attention_path", "projection_path"})
"""What a family without attention does not have."""
