"""What a reader meets first is true: links lead somewhere, nothing is left out, numbers are those of the records."""

from __future__ import annotations

import csv
from pathlib import Path
import re
import tomllib

import pytest
import yaml

import fpt_viz as fpt
from fpt_viz import registry

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
README = (ROOT / "README.md").read_text()
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")


def outside_fences(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files_of_the_repository(name):
    linked = LINK.findall(outside_fences((ROOT / name).read_text()))
    assert [target for target in linked if not (ROOT / target).exists()] == []


def test_make_targets_that_pages_name_are_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in PAGES:
        named = set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", (ROOT / name).read_text(), re.MULTILINE))
        assert {word for pair in named for word in pair if word} <= targets


def test_the_table_of_what_there_is_leaves_out_no_task_family_or_widget():
    table = README.partition("## What there is")[2].partition("\n## ")[0]
    words = set(re.findall(r"`([^`]+)`", table))
    assert set(registry.names("tasks")) <= words
    assert set(dir(fpt.widgets)) <= words
    families = set(registry.names("backbones"))
    assert {family for family in families if {family, f"{family}:"} & words} == families
    assert {"minilm", "smollm2"} <= words


def test_the_results_are_those_of_the_records():
    with (ROOT / "data/results/table_6-laptop-bit_xor/table.csv").open(newline="") as file:
        pretrained, random = csv.DictReader(file)
    section = README.partition("## Results")[2].partition("\n## ")[0]
    ours, theirs = (line.strip("| ").split(" | ") for line in section.splitlines() if re.match(r"\| (pre|ran)", line))
    assert ours[1:] == [
        pretrained["reached"], f"{float(pretrained['value']):.0f}", f"{pretrained['test accuracy (%)']} %",
        f"{float(pretrained['paper']):,.0f}",
    ]  # fmt: skip
    assert theirs[1:] == [
        random["reached"], f"more than {random['most steps taken']}",
        f"{random['test accuracy (%)']} % (chance: {100 * float(random['chance']):.1f} %)",
        f"{float(random['paper']):,.0f}",
    ]  # fmt: skip
    assert f"p = {float(random['p_holm']):.4f}" in section


def test_pictures_of_the_readme_are_light():
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert shown
    assert sum((ROOT / name).stat().st_size for name in shown) < 300_000


def test_the_citation_is_of_this_version_and_of_the_paper():
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["version"] == VERSION
    assert CITATION["license"] == "MIT"
    [paper] = CITATION["references"]
    assert "2103.05247" in paper["url"]


def test_the_changelog_knows_this_version():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert VERSION in headings or f"The first version, {VERSION}." in (ROOT / "CHANGELOG.md").read_text()
