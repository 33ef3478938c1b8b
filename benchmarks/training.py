"""One gradient step of MiniLM on bit XOR, beside the bare network's step and the machine's matrix products.

The bare step is the same network, batch and optimizer in ten lines of plain torch. The ceiling is what the same number
of multiplications takes in one large matrix product of float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks._timing import medians
import fpt_viz as fpt

BATCH, N_TOKENS = 64, 10


def measure() -> Iterator[str]:
    """Median seconds a step, examples a second, and the ratios."""
    ours, bare, evaluated = _ours(), _bare(), _model()
    side = 1024
    left, right = torch.randn(side, side), torch.randn(side, side)
    calls = {
        "fpt.train": lambda: next(ours),
        "bare torch": bare,
        "evaluate 256": lambda: fpt.evaluate(evaluated, n_examples=256),
        "matrix product": lambda: left @ right,
    }
    found = medians(calls)
    per_flop = found["matrix product"] / (2 * side**3)
    n_weights = sum(p.numel() for p in evaluated.parameters() if p.ndim == 2)
    floor = per_flop * 2 * n_weights * BATCH * N_TOKENS * 2  # forward, and the gradient of the activations
    for name in ("fpt.train", "bare torch"):
        yield f"{name:<15} {found[name]:7.3f} s/step  {BATCH / found[name]:7.0f} examples/s"
    yield f"{'evaluate 256':<15} {found['evaluate 256']:7.3f} s"
    yield f"{'matrix products':<15} {floor:7.3f} s/step at {1e-9 / per_flop:.0f} GFLOP/s: the floor of a float32 step"
    to_bare, to_floor = found["fpt.train"] / found["bare torch"], found["fpt.train"] / floor
    yield f"fpt.train takes {to_bare:.2f} x bare torch, {to_floor:.1f} x the floor"


def _model() -> fpt.FrozenPretrainedTransformer:
    return fpt.FrozenPretrainedTransformer(fpt.load_backbone("minilm"), fpt.load_task("bit_xor"))


def _ours() -> Iterator[object]:
    return fpt.train(_model(), config=fpt.TrainConfig(n_steps=10_000, batch_size=BATCH))


def _bare() -> object:
    model, task = _model().train(), fpt.load_task("bit_xor")  # dropout on, as in training
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-3)
    rng = torch.Generator().manual_seed(0)

    def step() -> None:
        batch = task.sample(BATCH, rng)
        hidden = model.backbone.network(inputs_embeds=model.input(batch.inputs)).last_hidden_state
        loss = torch.nn.functional.cross_entropy(model.output(hidden[:, -5:]).mT, batch.targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    return step
