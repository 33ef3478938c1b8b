"""The site is whole: its links lead somewhere, every public name is in it, and it opens with the network off."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
import re
import shutil
import subprocess
import sys
from urllib.parse import unquote, urlsplit

import pytest

import fpt_viz as fpt

ROOT = Path(__file__).parents[2]
NOTEBOOK = "01_train_and_look"


@pytest.fixture(scope="module")
def site(kept, tmp_path_factory) -> Path:
    """The site, built with warnings as errors and without running a notebook; of a copy, since it writes pages."""
    out = tmp_path_factory.mktemp("site")
    copy = out / "checkout"
    shutil.copytree(ROOT / "docs", copy / "docs", ignore=shutil.ignore_patterns("made", "__pycache__"))
    for path in ROOT.iterdir():
        if path.name != "docs" and not path.name.startswith("."):
            (copy / path.name).symlink_to(path)
    told = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-b", "html", "-d", str(out / "doctrees"),
         "-D", "notebooks=kept", "-D", f"notebooks_kept={kept}", "docs", str(out / "html")],
        cwd=copy, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    return out / "html"


class Links(HTMLParser):
    """Where a page leads, what it loads, and what can be led to in it."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.names |= {given[name] or "" for name in ("id", "name") if name in given}
        if tag == "a" and given.get("href"):
            self.targets.append(given["href"] or "")
        elif tag in {"script", "img", "iframe", "source"} and given.get("src"):
            self.loaded.append(given["src"] or "")
        elif tag == "link" and given.get("href") and given.get("rel") not in {"canonical"}:
            self.loaded.append(given["href"] or "")


def read(path: Path) -> Links:
    links = Links()
    links.feed(path.read_text("utf-8"))
    return links


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_link_of_the_site_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site):
    pages = {path: read(path) for path in site.rglob("*.html") if "widgets" not in path.parts[len(site.parts)]}
    assert len(pages) > 60
    for path, links in pages.items():
        for target in links.loaded:
            assert target.startswith("data:") or (path.parent / urlsplit(target).path).exists(), f"{path}: {target}"
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme:
                continue
            goal = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert goal.is_file(), f"{path.relative_to(site)}: {target}"
            if parts.fragment and goal in pages and "_modules" not in goal.parts:  # a name there may be an alias
                assert unquote(parts.fragment) in pages[goal].names, f"{path.relative_to(site)}: {target}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_public_name_is_documented(site):
    documented = {name for path in (site / "made/api").glob("*.html") for name in read(path).names}
    wanted = {f"fpt_viz.{name}" for name in fpt.__all__ if name not in ("__version__", *_folders())}
    wanted |= {f"fpt_viz.{folder}.{name}" for folder in _folders() for name in dir(getattr(fpt, folder))}
    assert {name for name in wanted if f"also-{re.sub('[._]', '-', name)}" not in documented} - documented == set()


def _folders() -> tuple[str, ...]:
    return ("analysis", "figures", "measures", "widgets")


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.timeout(600)
def test_pages_open_with_the_network_off(site, chromium):
    context = chromium.new_context(offline=True, viewport={"width": 1200, "height": 900})
    try:
        page, wrong = context.new_page(), []
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("console", lambda said: said.type == "error" and wrong.append(f"console: {said.text}"))
        page.on("requestfailed", lambda asked: wrong.append(f"asked for {asked.url}"))
        page.on("request", lambda asked: asked.url.startswith("http") and wrong.append(f"asked for {asked.url}"))
        names = [
            "index",
            "made/getting_started",
            "made/errors",
            "made/cli",
            "made/api/figures",
            "how_to/train",
            "made/results",
        ]
        for name in names:
            page.goto((site / f"{name}.html").as_uri())
            assert page.locator("article h1").first.is_visible(), name
            assert not page.evaluate("typeof Plotly !== 'undefined'"), "plotly is loaded where nothing is drawn"

        page.goto((site / "concepts.html").as_uri())
        formulas = page.locator("math")
        assert formulas.count() > 20
        assert min(formulas.nth(i).bounding_box()["width"] for i in range(formulas.count())) > 2

        page.goto((site / f"made/notebooks/{NOTEBOOK}.html").as_uri())
        page.locator(".plot .main-svg").first.wait_for()
        assert page.locator(".plot .heatmaplayer image").count() == 1
        frame = page.frame_locator("figure.widget iframe")
        page.locator("figure.widget").scroll_into_view_if_needed()
        frame.locator("canvas").first.wait_for()
        inside = frame.locator("body").evaluate("() => document.documentElement.scrollHeight")
        page.wait_for_function(
            "() => document.querySelector('figure.widget iframe').style.height !== ''",
        )
        assert abs(page.locator("figure.widget iframe").bounding_box()["height"] - inside) < 200

        page.set_viewport_size({"width": 390, "height": 800})
        for name in [*names, "concepts", f"made/notebooks/{NOTEBOOK}"]:
            page.goto((site / f"{name}.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, f"{name} is wider than a phone"
        assert wrong == []
    finally:
        context.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_search_finds_without_a_server(site, chromium):
    context = chromium.new_context(offline=True)
    try:
        page = context.new_page()
        page.goto((site / "search.html").as_uri() + "?q=ablation")
        page.locator("#search-results li").first.wait_for()
    finally:
        context.close()


def test_pages_written_by_hand_are_in_a_menu():
    menu = set()
    for page in (ROOT / "docs/index.md", ROOT / "docs/how_to/index.md"):
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            menu |= {str((page.parent / line).relative_to(ROOT / "docs")) for line in tree.split() if line[0] != ":"}
    pages = [path for folder in ("docs", "docs/how_to") for path in (ROOT / folder).glob("*.md")]
    assert {str(path.relative_to(ROOT / "docs").with_suffix("")) for path in pages} - menu == {"index"}
