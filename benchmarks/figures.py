"""Seconds and bytes of figures for paper, drawn afresh each time.

Wanted: a single-column PDF in 1 s at most, the grid of 12 x 12 heads in 3 s and 1 MB, the whole kit of two runs in 60 s
on two cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import tempfile

import numpy as np
import torch

from benchmarks._measured import Measured
from benchmarks._timing import medians
from fpt_viz.export import Figure
from fpt_viz.figures.attention_heatmap import attention_heatmap
from fpt_viz.figures.head_grid import head_grid

SUFFIXES = ("pdf", "svg", "png", "eps", "csv", "html")


def measure() -> Iterator[Measured]:
    """Seconds and size of each figure and format."""
    patterns = torch.randn(12, 1, 12, 64, 64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    small = patterns[:1, :, :1, :10, :10] / patterns[:1, :, :1, :10, :10].sum(-1, keepdim=True)
    shown: dict[str, tuple[Figure, str, tuple[str, ...]]] = {
        "one pattern, 10 tokens": (attention_heatmap(np.asarray(small)), "icml", SUFFIXES),
        "12 x 12 heads, 64 tokens": (head_grid(np.asarray(patterns)), "icml-wide", ("pdf", "svg", "png", "html")),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, (figure, preset, suffixes) in shown.items():
            for suffix in suffixes:
                path = Path(folder) / f"figure.{suffix}"

                def save(figure: Figure = figure, path: Path = path, preset: str = preset) -> object:
                    return figure.save(path, preset=preset)

                [seconds] = medians({name: save}, n_rounds=5).values()
                yield Measured(name=f"{name}, {suffix}", value=seconds, unit="s")
                yield Measured(name=f"{name}, {suffix}: size", value=path.stat().st_size / 1e6, unit="MB")
