"""Records of why heads do it, made by hand as a run on bit XOR would leave them: 8 heads, one of which routes.

No model, no task and no weights take part.
"""

from __future__ import annotations

from typing import Any

import torch

from fpt_viz.records import LanguageRoles, PatternShift, Telemetry

N_BITS = 3
BEST = (1, 2)
"""The head that routes."""
TOKENS = tuple(f"{string}{i}" for string in "ab" for i in range(N_BITS))
SOURCE = {"run": "xor-pretrained", "task": "bit_xor", "backbone": "minilm", "init": "pretrained", "seed": 0, "step": 60}


def make_shift(*, scored: bool = True) -> PatternShift:
    """Of 2 layers of 4 heads: BEST was moved by the positions against the input layer, and most of all."""
    heads = tuple((layer, head) for layer in range(2) for head in range(4))
    position = torch.linspace(0.5, 0.9, len(heads))
    position[heads.index(BEST)] = 1.1
    share = torch.stack([0.95 - position, position, torch.full_like(position, 0.05), torch.zeros_like(position)])
    start, parts = torch.full((len(heads),), 0.1), 0.4 * share * position
    scores = {
        "score_start": start, "score_end": start + parts.sum(0), "score_part": parts,
        "score_interval": torch.stack([parts - 0.01, parts + 0.01], -1),
    } if scored else {}  # fmt: skip
    return PatternShift(
        groups=("input", "position", "layer_norm", "feed_forward"),
        moved=(True, True, True, False),
        heads=heads,
        share=share,
        share_interval=torch.stack([share - 0.03, share + 0.03], -1),
        change=position / 2,
        change_interval=torch.stack([position / 2 - 0.01, position / 2 + 0.01], -1),
        queries="readout",
        n_examples=64,
        split="test",
        seed=0,
        source=SOURCE,
        **scores,
    )


def make_telemetry(*, scored: bool = True) -> Telemetry:
    """Of 2 layers of 4 heads at 4 steps: BEST routes ever more."""
    ways = torch.linspace(0, 1, 4)
    score = 0.1 + 0.02 * torch.rand(4, 2, 4, generator=torch.Generator().manual_seed(3))
    score[:, BEST[0], BEST[1]] = 0.1 + 0.7 * ways
    scores = torch.randn(8, N_BITS, 2 * N_BITS, generator=torch.Generator().manual_seed(7))
    scores[4 * BEST[0] + BEST[1], range(N_BITS), range(N_BITS)] += 4
    patterns = scores.softmax(-1)
    even = torch.full_like(patterns, 1 / (2 * N_BITS))
    shown = torch.stack([(1 - way) * even + way * patterns for way in ways])
    gains = torch.linspace(0.5, 1, 5)[None] * 0.03 * ways[:, None]
    return Telemetry(
        steps=(0, 20, 40, 60),
        heads=tuple((layer, head) for layer in range(2) for head in range(4)),
        patterns=shown[:, :, None].expand(-1, -1, 2, -1, -1).half(),
        queries=torch.arange(N_BITS, 2 * N_BITS).expand(2, -1),
        routing_score=score if scored else None,
        norms=tuple(f"backbone.network.encoder.layer.{i}.output.LayerNorm.weight" for i in range(5)),
        gain_change=gains,
        gain_rms=0.9 + gains,
        labels=(tuple(f"{token}=1" for token in TOKENS),) * 2,
        split="validation",
        seed=0,
        source=SOURCE,
    )


def make_language_roles(*, scored: bool = True) -> LanguageRoles:
    """Of 2 layers of 4 heads: BEST reads the previous word, and what it does goes with the routing score."""
    roles = ("previous_token", "duplicate_token", "sink", "delimiter", "offset", "needed_offset")
    rng = torch.Generator().manual_seed(6)
    score = 0.1 + 0.1 * torch.rand(len(roles), 2, 4, generator=rng)
    score[0, BEST[0], BEST[1]] = score[4, BEST[0], BEST[1]] = 0.93
    by_offset = 0.05 * torch.rand(7, 2, 4, generator=rng)
    by_offset[2, BEST[0], BEST[1]] = 0.93
    value = torch.tensor([0.8, 0.1, -0.4, 0.0, 0.7, 0.2])
    around = torch.stack([value - 0.2, value + 0.2], -1)
    beside: dict[str, Any] = {
        "routing_score": score[0] / 2, "correlation": value, "correlation_interval": around,
        "p": torch.full((6,), 0.04), "within": value / 2, "within_interval": around / 2,
        "within_p": torch.full((6,), 0.3),
    } if scored else {}  # fmt: skip
    return LanguageRoles(
        roles=roles,
        score=score,
        interval=torch.stack([score - 0.01, score + 0.01], -1),
        uniform=torch.tensor([0.02, 0.03, 0.02, 0.19, 0.02, 0.02]),
        random=torch.full_like(score, 0.03),
        offsets=tuple(range(-3, 4)),
        by_offset=by_offset,
        needed_offset=-N_BITS,
        text="a made text",
        n_pieces=5,
        n_tokens=16,
        causal=False,
        n_examples=64,
        split="test",
        seed=0,
        source=SOURCE,
        **beside,
    )
