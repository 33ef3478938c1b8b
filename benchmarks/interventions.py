"""Reading and cutting heads: memory beside a plain forward pass, statistics of many examples, 72 heads ablated.

TransformerLens, where it is installed (``pip install transformer-lens``), does the same on the same weights, a random
GPT-2 of MiniLM's size, in the same run.
"""

from __future__ import annotations

from collections.abc import Iterator
import gc
import os
from pathlib import Path
import resource
import subprocess
import sys
import tempfile
from time import perf_counter, process_time

import torch

from benchmarks._measured import Better, Measured
from benchmarks._timing import medians
import fpt_viz as fpt
from fpt_viz.memory import peak_bytes

LONG, N_SHORT, N_LONG = 1024, 100, 10_000


def measure() -> Iterator[Measured | str]:
    """Memory and seconds."""
    for part in (_capture_memory, _statistics, _captures_in_a_loop, _ablation, _beside_transformerlens):
        yield from part()


def _capture_memory() -> Iterator[Measured]:
    task = fpt.load_task("bit_xor", n_bits=LONG // 2)
    model = fpt.FrozenPretrainedTransformer(fpt.load_backbone("gpt2", "random"), task).eval()
    batch = task.sample(1, torch.Generator().manual_seed(0))

    def plain() -> None:
        with torch.no_grad():
            model(batch.inputs)

    base = peak_bytes(plain)
    rows = peak_bytes(lambda: fpt.capture_attention(model, batch, queries=[-1]))
    layer = peak_bytes(lambda: fpt.capture_attention(model, batch, layers=[5], queries=None))
    own = fpt.capture_attention(model, batch, layers=[5], queries=None).weights.nbytes
    size = f"GPT-2 size, {LONG} tokens"
    yield Measured(name=f"{size}: peak of a plain forward pass", value=base / 1e6, unit="MB")
    yield Measured(name=f"{size}: more for one row of every head", value=(rows - base) / 1e6, unit="MB")
    yield Measured(name=f"{size}: more for whole patterns of one layer", value=(layer - base) / 1e6, unit="MB")
    yield Measured(name=f"{size}: that by their own bytes", value=(layer - base) / own, unit="x")


def _statistics() -> Iterator[Measured]:
    task = fpt.load_task("bit_xor", n_bits=32)
    model = fpt.FrozenPretrainedTransformer(fpt.load_backbone("minilm"), task).eval()
    batch = task.distinct(128, "validation")

    def plain() -> None:
        with torch.no_grad():
            for start in range(0, len(batch), 64):
                model(batch.inputs[start : start + 64])

    found = medians({"plain": plain, "statistics": lambda: fpt.head_statistics(model, n_examples=128)})
    ratio = found["statistics"] / found["plain"]
    yield Measured(name="head_statistics at 64 tokens, beside plain passes", value=ratio, unit="x")
    for n_examples in (N_SHORT, N_LONG):
        name = f"head_statistics of {n_examples} examples, peak of its process"
        yield Measured(name=name, value=_statistics_peak(n_examples), unit="MiB")


def _statistics_peak(n_examples: int) -> float:
    """Peak resident memory, in MiB, of a process that measures so many examples of 20 tokens on a small network."""
    code = (
        "import re\n"
        "from pathlib import Path\n"
        "import fpt_viz as fpt\n"
        "model = fpt.FrozenPretrainedTransformer(fpt.load_backbone('minilm'), fpt.load_task('bit_xor', n_bits=10))\n"
        f"stats = fpt.head_statistics(model, n_examples={n_examples})\n"
        f"assert stats.n_examples == {n_examples}\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 2**10)"
    )
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def _captures_in_a_loop() -> Iterator[Measured]:
    model = fpt.FrozenPretrainedTransformer(fpt.load_backbone("minilm"), fpt.load_task("bit_xor")).eval()
    batch = model.task.distinct(8, "test")
    kept = []
    for index in range(220):
        fpt.capture_attention(model, batch, queries=None)
        if index in (19, 219):
            gc.collect()
            kept.append(_resident_bytes())
    yield Measured(name="200 captures in a loop, growth", value=(kept[1] - kept[0]) / 1e6, unit="MB")
    yield Measured(name="hooks left by them", value=len(model.leaked_hooks()), unit="")


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _ablation() -> Iterator[Measured]:
    task = fpt.load_task("bit_xor")
    model = fpt.FrozenPretrainedTransformer(fpt.load_backbone("minilm"), task).eval()
    batch = task.distinct(512, "train")

    def plain() -> None:
        with torch.no_grad():
            model(batch.inputs)

    one = medians({"plain": plain}, n_rounds=3)["plain"]
    clock, processor = perf_counter(), process_time()
    fpt.ablate_heads(model, split="train", n_examples=512)
    clock, processor = perf_counter() - clock, process_time() - processor
    name = "each of 72 heads zero-ablated on 512 strings"
    yield Measured(name=name, value=clock, unit="s")
    yield Measured(name=f"{name}, of the processor", value=processor, unit="s")
    yield Measured(name=f"{name}, in forward passes", value=clock / one, unit="x", note=f"one of {one:.3f} s")


def _beside_transformerlens() -> Iterator[Measured | str]:
    try:
        from transformer_lens.model_bridge import TransformerBridge  # an optional neighbour, never installed with us
    except ImportError as error:
        yield f"TransformerLens was not timed: {error}"
        return
    with tempfile.TemporaryDirectory() as folder:
        _save_random_gpt2(Path(folder))
        theirs = TransformerBridge.boot_transformers(folder, device="cpu")
        task = fpt.load_task("bit_xor")
        ours = fpt.FrozenPretrainedTransformer(fpt.load_backbone(f"gpt2:{folder}"), task).eval()
    batch = task.distinct(512, "train")
    tokens = torch.randint(4, 64, batch.inputs.shape[:2])
    heads = [(layer, head) for layer in range(6) for head in range(12)]

    def theirs_cut() -> None:
        with torch.no_grad():
            theirs(tokens)
            for layer, head in heads:
                theirs.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", _zero(head))])

    def theirs_cached() -> None:
        with torch.no_grad():
            theirs.run_with_cache(tokens[:64])

    found = medians(
        {
            "ours, 72 heads": lambda: fpt.ablate_heads(ours, split="train", n_examples=512),
            "TransformerLens, 72 heads": theirs_cut,
            "ours, run_with_cache of 64": lambda: ours.run_with_cache(batch.inputs[:64]),
            "TransformerLens, run_with_cache of 64": theirs_cached,
        },
        n_rounds=1,
    )
    _, cache = ours.run_with_cache(batch.inputs[:64])
    with torch.no_grad():
        _, other = theirs.run_with_cache(tokens[:64])
    for name, seconds in found.items():
        better: Better = "neither" if name.startswith("TransformerLens") else "lower"
        yield Measured(name=name, value=seconds, unit="s", better=better)
    yield f"activations kept: {len(cache)} by ours, {len(other)} by TransformerLens (with its second spelling of many)"
    yield f"peak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"


def _zero(head: int) -> object:
    def cut(z: torch.Tensor, hook: object) -> torch.Tensor:
        z[:, :, head] = 0
        return z

    return cut


def _save_random_gpt2(folder: Path) -> None:
    """A GPT-2 of MiniLM's size with random weights, and a tokenizer of 64 words, which TransformerLens wants."""
    from tokenizers import Tokenizer, models
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({str(i): i for i in range(64)}, unk_token="0"))  # noqa: S106  # a word, not a secret
    special = {f"{name}_token": str(i) for i, name in enumerate(("bos", "eos", "pad"), start=1)}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    config = GPT2Config(n_layer=6, n_head=12, n_embd=384, vocab_size=64, n_positions=64, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder)
