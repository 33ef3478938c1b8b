"""The tables of docs/tap.md list exactly the activations that each family has, with the shapes that they have."""

from __future__ import annotations

from pathlib import Path
import re
from typing import NamedTuple

import pytest
import torch

from fpt_viz import registry
from fpt_viz.activations import all_names, folded
from fpt_viz.backbones import load_backbone
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.tasks import load_task


class Row(NamedTuple):
    name: str
    shape: str
    where: str


def tables(page: Path) -> dict[str, list[Row]]:
    """Family -> the rows of its table."""
    found: dict[str, list[Row]] = {}
    for section in page.read_text(encoding="utf-8").split("\n### ")[1:]:
        [family] = re.findall(r"\(`(\w+)`\)", section.partition("\n")[0])
        cells = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
        found[family] = [Row(name.strip("`"), shape.strip("`"), where) for name, shape, where in cells]
    return found


@pytest.fixture
def page(repository: Path) -> Path:
    return repository / "docs" / "tap.md"


@pytest.fixture(params=registry.names("backbones"))
def model(request: pytest.FixtureRequest) -> FrozenPretrainedTransformer:
    backbone = load_backbone(f"{request.param}-tiny-random", "random")
    return FrozenPretrainedTransformer(backbone, load_task("bit_xor", n_bits=3)).eval()


def test_every_family_has_one_table_and_no_other_has(page):
    assert sorted(tables(page)) == registry.names("backbones")


def test_a_table_lists_exactly_the_names_there_are_in_their_order(page, model):
    rows = tables(page)[model.backbone.provenance.family]
    there = [name.replace("{0..2}", "{i}") for name in folded(all_names(model.backbone))]
    assert [row.name for row in rows] == there


@torch.no_grad()
def test_the_shapes_are_those_of_a_forward_pass(page, model):
    backbone, inputs = model.backbone, model.task.distinct(2, "test").inputs
    rows = tables(page)[backbone.provenance.family]
    _, cache = model.run_with_cache(inputs, names_filter=all_names(backbone))
    sizes = {
        "batch": 2, "pos": 6, "query": 6, "key": 6, "d_model": 32, "head": 4, "kv_head": model.cfg.n_key_value_heads,
        "d_head": 8, "d_mlp": cache["pre", 1].shape[-1] if backbone.has_attention else 0, "readout": 3, "out": 2,
        "1": 1,
    }  # fmt: skip

    for row in rows:
        shape = tuple(sizes[axis] for axis in row.shape.strip("[]").split())
        assert cache[row.name.replace("{i}", "1")].shape == shape, row.name


def test_the_places_are_those_that_the_family_declares(page, model):
    backbone = model.backbone
    declared = {f"blocks.{{i}}.{name}": place for name, place in backbone.places.items()} | backbone.outer_places
    sides = {"input": "input of", "output": "output of", "rows": "", "kernel": "kernel of"}

    for row in tables(page)[backbone.provenance.family]:
        if row.name in declared:
            place = declared[row.name]
            path = f"`{place.module.removeprefix('network.')}`" if place.module else "the block"
            assert path in row.where, row
            assert row.where.startswith(sides.get(place.side, "inside")), row
            assert ("stream too" in row.where) == place.stream, row
