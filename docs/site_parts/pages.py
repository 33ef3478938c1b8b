"""What the site holds beyond the pages written by hand: made when a build starts, copied when it ends."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
import re
import shutil
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from site_parts import api_pages, cli_reference, error_catalogue, notebook_pages, notebooks
from site_parts.links import PAGES, ROOT, relinked

DOCS = ROOT / "docs"
MADE = DOCS / "made"
LEFT_OUT = {"What there is", "How it is built"}
"""Headings of the README that are pages of their own here."""
BACK = re.compile(r'<a class="viewcode-back"[^>]*>[^<]*</a>')
"""A link from source code to its documentation: Sphinx takes all that a file holds to be documented as one module's."""
MODES = ("run", "kept", "bare")
MEASURES_ITSELF = """<script>
const tell = () => parent.postMessage({ fptHeight: document.documentElement.scrollHeight }, "*");
new ResizeObserver(tell).observe(document.body);
</script>"""


def write_pages(app: Sphinx) -> None:
    """Write ``docs/made/`` anew; a page that is as before is left, so that Sphinx does not read it again."""
    texts = {
        "getting_started.md": _getting_started(),
        "cli.md": cli_reference.page(),
        "errors.md": error_catalogue.page(),
        "licence.md": f"# Licence\n\n```text\n{(ROOT / 'LICENSE').read_text('utf-8')}```\n",
    }
    texts |= {f"api/{name}": text for name, text in api_pages.pages().items()}
    for source, page in PAGES.items():
        if page.startswith("made/") and source != "README.md":
            texts[page.removeprefix("made/")] = _copied(source, page)
    texts |= _notebook_texts(app)
    kept = {MADE / name for name in texts}
    for old in (path for path in MADE.rglob("*.md") if path not in kept):
        old.unlink()
    for name, text in texts.items():
        path = MADE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _notebook_texts(app: Sphinx) -> dict[str, str]:
    mode, kept = app.config.notebooks, Path(app.config.notebooks_kept)
    if mode not in MODES:
        raise ValueError(f"notebooks must be one of {', '.join(MODES)}, got {mode!r}")
    app.widget_pages = {}  # type: ignore[attr-defined]
    texts, titles = {}, []
    for path in sorted(notebooks.FOLDER.glob("*.ipynb")):
        notebook, place = notebooks.executed(path, kept, mode)
        texts[f"notebooks/{path.stem}.md"] = notebook_pages.markdown(notebook, path.stem, place)
        titles.append(path.stem)
        app.widget_pages |= {f"{path.stem}/{page.name}": page for page in sorted((place or kept).glob("cell-*.html"))}  # type: ignore[attr-defined]
    listed = "\n".join(titles)
    texts["notebooks/index.md"] = (
        "# Guided notebooks\n\nEach says what you will learn, asks questions with hidden answers, and has cells that "
        "are made to be changed. Here they are as they ran, with their figures and widgets; `make lab` opens them to "
        "be run.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    )
    return texts


def _getting_started() -> str:
    """The README without its picture book and its map of the code."""
    intro, *sections = re.split(r"^(?=## )", (ROOT / "README.md").read_text("utf-8"), flags=re.MULTILINE)
    kept = [part for part in sections if part.partition("\n")[0].removeprefix("## ").strip() not in LEFT_OUT]
    del intro
    return relinked("# Getting started\n\n" + "".join(kept), "", PAGES["README.md"])


def _copied(source: str, page: str) -> str:
    path = ROOT / source
    if not path.is_file():
        title = Path(page).stem.capitalize()
        return f"# {title}\n\nThere is none yet.\n"
    return relinked(path.read_text("utf-8"), str(Path(source).parent), page)


def _citation() -> str:
    path = ROOT / "CITATION.cff"
    return f"```yaml\n{path.read_text('utf-8').strip()}\n```" if path.is_file() else "There is none yet."


def relink(app: Sphinx, name: str, content: list[str]) -> None:
    """Let links of a page written by hand lead where the site has the file."""
    path = app.env.doc2path(name, base=False)
    if path.as_posix() == PAGES["CITATION.cff"]:
        content[0] = content[0].replace("<!-- citation -->", _citation())
    if path.suffix == ".md" and not path.as_posix().startswith("made/"):
        content[0] = relinked(content[0], f"docs/{path.parent}", path.as_posix())


def add_plotly(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Load plotly.js on the pages that draw with it, and on no other."""
    if str((app.env.metadata.get(page) or {}).get("plotly")).lower() == "true":
        app.add_js_file("plotly.min.js", loading_method="defer", priority=400)
    app.add_js_file("site.js", loading_method="defer", priority=900)


def copy_files(app: Sphinx, error: Exception | None) -> None:
    """Put plotly.js, the widgets' pages and the example pages into the site."""
    if error or app.builder.name != "html":
        return
    out = Path(app.outdir)
    (out / "_static/plotly.min.js").write_bytes((files("plotly") / "package_data" / "plotly.min.js").read_bytes())
    (out / "examples").mkdir(exist_ok=True)
    for page in sorted((DOCS / "examples").glob("*.html")):
        shutil.copyfile(page, out / "examples" / page.name)
    for page in (out / "_modules").rglob("*.html"):
        text = page.read_text("utf-8")
        page.write_text(BACK.sub("", text), encoding="utf-8")
    shutil.rmtree(out / "widgets", ignore_errors=True)
    for name, page in app.widget_pages.items():  # type: ignore[attr-defined]
        path = out / "widgets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = page.read_text("utf-8")
        path.write_text(text.replace("</body>", f"{MEASURES_ITSELF}\n</body>"), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Make, relink, and copy."""
    app.add_config_value("notebooks", "run", "env", str)
    app.add_config_value("notebooks_kept", str(ROOT / "build/notebooks"), "", str)
    app.connect("builder-inited", write_pages)
    app.connect("source-read", relink)
    app.connect("html-page-context", add_plotly)
    app.connect("build-finished", copy_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
