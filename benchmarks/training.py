"""Gradient steps beside a plain float32 loop of the paper's recipe on the same network, batch and task.

The plain loop is the network of transformers as it comes, frozen but for layer norms, positions and new layers, with
dropout 0.1, Adam and clipping (Lu et al., 2021, and its code): float32, no option set. Ratios are of medians of five
steps taken in turn. Memory: resident memory at its peak less that of the process just before the model is built, each
loop in a process of its own (Linux).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
import subprocess
import sys
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

from benchmarks import _machine
from benchmarks._measured import Measured
from benchmarks._timing import medians
import fpt_viz as fpt
from fpt_viz.training_pass import pick_precision


@dataclass(frozen=True)
class Size:
    """One line of the table."""

    backbone: str
    task: str
    options: tuple[tuple[str, Any], ...]
    batch: int
    memory: bool = False

    @property
    def name(self) -> str:
        """As it is printed."""
        n_tokens = fpt.load_task(self.task, **dict(self.options)).n_tokens
        return f"{self.backbone}, {n_tokens} tokens, batch {self.batch}"


PIXELS = (("patch_size", 1),)
SIZES = [
    Size("gpt2", "digits", PIXELS, 16),
    Size("gpt2", "digits", PIXELS, 64),
    Size("gpt2", "bit_xor", (), 16),
    Size("gpt2", "bit_xor", (), 64),
    Size("minilm", "digits", PIXELS, 64, memory=True),
    Size("minilm", "bit_xor", (), 64),
]
CUDA_SIZES = [Size("gpt2", "digits", PIXELS, 256), Size("gpt2", "digits", PIXELS, 1024)]


def measure() -> Iterator[Measured]:
    """Seconds a step, and how many times faster than the plain loop."""
    device = _machine.device()
    for size in SIZES + (CUDA_SIZES if device.type == "cuda" else []):
        loops = {"plain": plain(size), "float32": ours(size)}
        if pick_precision("auto", device) == "bfloat16":
            loops["bfloat16"] = ours(size, precision="bfloat16")
        found = medians({name: _machine.done(step) for name, step in loops.items()}, n_rounds=5)
        yield Measured(name=f"{size.name}: plain loop", value=found["plain"], unit="s/step")
        for name in found.keys() - {"plain"}:
            yield Measured(name=f"{size.name}: fpt.train, {name}", value=found[name], unit="s/step")
            ratio = found["plain"] / found[name]
            yield Measured(name=f"{size.name}: {name} against plain", value=ratio, unit="x as fast", better="higher")
        if size.memory and device.type == "cpu" and sys.platform == "linux":
            peaks = {name: _peak(size, name) for name in ("plain", "ours")}
            for name, peak in peaks.items():
                yield Measured(name=f"{size.name}: peak memory, {name}", value=peak / 2**20, unit="MiB")
            ratio = peaks["ours"] / peaks["plain"]
            yield Measured(name=f"{size.name}: peak memory, ours against plain", value=ratio, unit="x as much")


def ours(size: Size, **options: Any) -> Callable[[], object]:
    """``fpt.train``, with the library's own dropout rates, which are 0.1 as well."""
    task = fpt.load_task(size.task, **dict(size.options))
    backbone = fpt.load_backbone(size.backbone, init="random")
    model = fpt.FrozenPretrainedTransformer(backbone, task).to(_machine.device())
    steps = fpt.train(model, config=fpt.TrainConfig(n_steps=10_000, batch_size=size.batch, **options))
    return lambda: next(steps)


def plain(size: Size) -> Callable[[], object]:
    """The paper's recipe in plain torch."""
    task = fpt.load_task(size.task, **dict(size.options))
    preset = fpt.load_backbone(size.backbone, init="random").network.config.to_dict()
    if size.backbone == "gpt2":
        network: nn.Module = GPT2Model(
            GPT2Config(**preset | {"vocab_size": 1, "bos_token_id": None, "eos_token_id": None})
        )
    else:
        network = BertModel(BertConfig(**preset | {"vocab_size": 1}), add_pooling_layer=False)
    width = preset.get("n_embd") or preset["hidden_size"]
    n_outputs = torch.Size(task.output_shape).numel()
    layers = nn.ModuleDict({"input": nn.Linear(task.n_values or 1, width), "output": nn.Linear(width, n_outputs)})
    for name, parameter in network.named_parameters():
        parameter.requires_grad = any(part in name.lower() for part in ("ln_", "layernorm", "wpe", "position"))
    for module in (network, layers):
        module.to(_machine.device()).train()
    trained = [p for module in (network, layers) for p in module.parameters() if p.requires_grad]
    optimizer, rng = torch.optim.Adam(trained, lr=1e-3), torch.Generator().manual_seed(0)

    def step() -> Tensor:
        batch = task.sample(size.batch, rng).to(_machine.device())
        states = network(inputs_embeds=nn.functional.dropout(layers["input"](batch.inputs), 0.1))
        read = layers["output"](states.last_hidden_state[:, -task.n_readout :])
        loss = task.loss(read.unflatten(-1, task.output_shape), batch.targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return loss.detach()

    return step


def _peak(size: Size, loop: str) -> float:
    """Bytes of resident memory that the loop adds to its process at its peak."""
    code = f"from benchmarks import training; training.report_peak({SIZES.index(size)}, {loop!r})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def report_peak(index: int, loop: str) -> None:
    """In a process of its own: print the bytes that three steps of a loop add at their peak."""
    before = _resident("VmRSS")
    step = plain(SIZES[index]) if loop == "plain" else ours(SIZES[index])
    for _ in range(3):
        step()
    print(_resident("VmHWM") - before)


def _resident(field: str) -> int:
    """Bytes that are resident now (VmRSS), or were at most since the process began (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
