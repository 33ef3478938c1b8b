"""What the activations of a model are called: TransformerLens's names, its short forms and the newer spellings.

A full name is ``blocks.{layer}.`` and the activation, or the activation alone outside the blocks. Short forms mean the
same: ``"pattern3"``, ``("pattern", 3)``, ``"scale0ln1"``. Layers may be negative, counted from the last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
import re
from typing import TypeGuard, cast

from fpt_viz.backbones.base import Backbone
from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.kernel import PATTERN, QK, ROT_QK, SCORES, Z

ActivationName = str | tuple[str, int] | tuple[str, int, str]
NameFilter = ActivationName | Collection[ActivationName] | Callable[[str], bool] | None

SHORT_FORM = re.compile(r"([a-z_]+)(-?\d+)(\w*)")
ALIASES = {
    "hook_in": "hook_resid_pre",
    "hook_out": "hook_resid_post",
    "attn.q.hook_out": "attn.hook_q",
    "attn.k.hook_out": "attn.hook_k",
    "attn.v.hook_out": "attn.hook_v",
    "attn.o.hook_in": "attn.hook_z",
    "attn.hook_out": "hook_attn_out",
    "ln1.hook_in": "hook_resid_pre",
    "ln2.hook_in": "hook_resid_mid",
    "mlp.in.hook_out": "mlp.hook_pre",
    "mlp.out.hook_in": "mlp.hook_post",
    "mlp.hook_out": "hook_mlp_out",
}
"""TransformerLens 3's spelling below a block -> ours, for blocks whose norms come first."""
POST_LN_ALIASES = {
    **ALIASES,
    "hook_out": "hook_normalized_resid_post",
    "ln1.hook_in": "hook_resid_mid",
    "ln1.hook_out": "hook_normalized_resid_mid",
    "ln2.hook_in": "hook_resid_post",
    "ln2.hook_out": "hook_normalized_resid_post",
}
"""The same where each half of a block ends in its norm."""
GATED_ALIASES = {"mlp.gate.hook_out": "mlp.hook_pre", "mlp.in.hook_out": "mlp.hook_pre_linear"}
"""The same where the feed-forward layer has two halves."""
OUTER_ALIASES = {"embed.hook_out": "hook_embed", "pos_embed.hook_out": "hook_pos_embed"}
SHORT_KINDS = {
    "attn": "pattern", "attn_logits": "attn_scores", "key": "k", "query": "q", "value": "v", "mlp_pre": "pre",
    "mlp_post": "post",
}  # fmt: skip
"""TransformerLens's other words in short forms."""
SHORT_PARTS = {"a": "attn", "attention": "attn", "m": "mlp", "b": "", "block": "", "blocks": ""}
OPT_IN = "attn.hook_result"
OF_ATTENTION = (*QK, *ROT_QK, "attn.hook_v", SCORES, PATTERN, Z, OPT_IN, "hook_attn_out")
"""What no family without attention has."""


def activation_names(backbone: Backbone) -> list[str]:
    """Every activation of a model on ``backbone`` that a filter of None means, in the order of the forward pass."""
    return [name for name in all_names(backbone) if not name.endswith(OPT_IN)]


def all_names(backbone: Backbone) -> list[str]:
    """The same, and those that are computed only where they are named: what each head adds (``attn.hook_result``)."""
    outer = list(backbone.outer_places)
    before = [name for name in outer if not name.startswith("ln_final")]
    blocks = [f"blocks.{layer}.{name}" for layer in range(backbone.n_layers) for name in backbone.places]
    return ["hook_embed", *before, *blocks, *(name for name in outer if name not in before), "readout.hook_out"]


def matching(backbone: Backbone, wanted: NameFilter) -> list[str]:
    """The full names that ``wanted`` means.

    Args:
        backbone: Of the model.
        wanted: None for all, a name, names, or a function of a full name. Neither None nor a function is offered
            ``attn.hook_result``, which takes d_model / d_head times the memory of z: name it.

    Raises:
        UnknownNameError: A name that this model does not have.
        ConfigError: A function that chooses nothing.
    """
    if wanted is None:
        return activation_names(backbone)
    if callable(wanted):
        chosen = [name for name in activation_names(backbone) if wanted(name)]
        if not chosen:
            raise ConfigError(
                "the filter chooses none of the model's activations, such as blocks.0.attn.hook_z; attn.hook_result "
                "is offered to no filter: name it"
            )
        return chosen
    known = all_names(backbone)
    asked = (
        [wanted] if isinstance(wanted, str) or _is_short(wanted) else list(cast("Collection[ActivationName]", wanted))
    )
    return [_known_name(name, known, backbone) for name in asked]


def _is_short(wanted: object) -> TypeGuard[ActivationName]:
    """Whether ``wanted`` is one name in its short form, such as ``("pattern", 3)``, rather than several."""
    return isinstance(wanted, tuple) and len(wanted) > 1 and isinstance(wanted[1], int)


def _known_name(asked: ActivationName, known: Collection[str], backbone: Backbone) -> str:
    found = full_name(asked, known, backbone.n_layers)
    if found is not None:
        return found
    of_heads = [f"blocks.{layer}.{name}" for layer in range(backbone.n_layers) for name in OF_ATTENTION]
    if not backbone.has_attention and full_name(asked, of_heads, backbone.n_layers) is not None:
        raise backbone.no_attention()
    raise unknown("activation", asked, known)


def unknown(what: str, asked: ActivationName, known: Collection[str]) -> UnknownNameError:
    """The error that ``asked`` means none of the ``known`` names, which it lists."""
    told = asked if isinstance(asked, str) else "".join(map(str, asked))
    return UnknownNameError(what, told, known, listed=folded(known))


def full_name(asked: ActivationName, known: Collection[str], n_layers: int) -> str | None:
    """The one of ``known`` that ``asked`` means, in full, in a short form or in another spelling; None for none.

    Args:
        asked: Such as ``"blocks.3.attn.hook_pattern"``, ``"pattern3"``, ``("pattern", -1)`` or ``"embed"``.
        known: Full names.
        n_layers: Of the model; what negative layers are counted from.
    """
    if isinstance(asked, tuple):
        kind, index, *part = asked
        return _short(str(kind), index, str(part[0]) if part else "", known, n_layers)
    name = asked
    if name in known:
        return name
    if name.startswith("blocks."):
        number, _, rest = name.removeprefix("blocks.").partition(".")
        layer = _layer(number, n_layers)
        candidates = [f"blocks.{layer}.{below}" for below in (rest, _aliases(known).get(rest))]
    else:
        short = SHORT_FORM.fullmatch(name)
        if short and (found := _short(short[1], int(short[2]), short[3], known, n_layers)):
            return found
        candidates = [OUTER_ALIASES.get(name, ""), f"hook_{name}", f"ln_final.hook_{name}", f"{name}.hook_out"]
    return next((candidate for candidate in candidates if candidate in known), None)


def _short(kind: str, layer: object, part: str, known: Collection[str], n_layers: int) -> str | None:
    """The name of ``kind`` in ``layer``, in the ``part`` of the block that is given or that alone has it."""
    kind, number = SHORT_KINDS.get(kind, kind), _layer(str(layer), n_layers)
    part = SHORT_PARTS.get(part, part)
    for place in (part, "", "attn", "mlp"):
        name = f"blocks.{number}.{place}{'.' if place else ''}hook_{kind}"
        if name in known:
            return name
    return None


def _layer(number: str, n_layers: int) -> int | None:
    if not re.fullmatch(r"-?\d+", number) or not -n_layers <= int(number) < n_layers:
        return None
    return int(number) % n_layers


def _aliases(known: Collection[str]) -> dict[str, str]:
    post_ln = any(name.endswith("hook_normalized_resid_post") for name in known)
    gated = any(name.endswith("mlp.hook_pre_linear") for name in known)
    return (POST_LN_ALIASES if post_ln else ALIASES) | (GATED_ALIASES if gated else {})


def folded(names: Iterable[str]) -> list[str]:
    """``names`` with those of all blocks told once, as ``blocks.{0..5}.hook_resid_pre``."""
    layers: dict[str, list[int]] = {}
    for name in names:
        number, _, below = name.removeprefix("blocks.").partition(".")
        inside = name.startswith("blocks.") and number.isdigit()
        layers.setdefault(below if inside else name, []).extend([int(number)] if inside else [])
    told = {name: f"{min(found)}..{max(found)}" if found else "" for name, found in layers.items()}
    return [f"blocks.{{{span}}}.{name}" if span else name for name, span in told.items()]
