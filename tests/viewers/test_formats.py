"""Every figure in every format, looked at with other people's tools."""

from __future__ import annotations

import csv
from dataclasses import replace
import io
from itertools import pairwise
import json
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image
import pytest

from fpt_viz import registry
from fpt_viz.errors import ConfigError, FptVizError, UnknownNameError
from fpt_viz.export import PRESETS, SUFFIXES, Figure, Heatmap, Tiles, numbers
from fpt_viz.export._layout import in_lines
from fpt_viz.export._paper_style import settings

pytestmark = pytest.mark.slow  # a minute or so in all

NAMES = registry.names("figures")
EACH = pytest.mark.parametrize("name", NAMES)
NEEDS_POPPLER = pytest.mark.skipif(shutil.which("pdffonts") is None, reason="no poppler: apt-get install poppler-utils")
NEEDS_TEX = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX: apt-get install texlive-latex-base")
SVG = "{http://www.w3.org/2000/svg}"


def said(*command: object, cwd: Path | None = None) -> str:
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, cwd=cwd).stdout


def compiled(body: str, folder: Path) -> Path:
    """A page of LaTeX with ``body``."""
    (folder / "page.tex").write_text(
        "\\documentclass{article}\\usepackage{pgf,graphicx,booktabs}\\pagestyle{empty}\n"
        f"\\begin{{document}}\n{body}\n\\end{{document}}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-1500:]
    return folder / "page.pdf"


def titles(figure: Figure) -> set[str]:
    """The words at the axes of every panel."""
    return {word for panel in figure.panels for title in (panel.x_title, panel.y_title) for word in title.split()}


@NEEDS_POPPLER
@EACH
def test_a_pdf_has_its_width_its_fonts_and_its_words(gallery, name, tmp_path):
    path = gallery[name].save(tmp_path / "figure.pdf", preset="icml")
    told = said("pdfinfo", path)
    width = float(re.search(r"Page size:\s+([\d.]+) x", told)[1])
    assert width == pytest.approx(3.25 * 72, abs=0.5)
    assert re.search(r"Pages:\s+1$", told, re.MULTILINE)
    fonts = [line.split() for line in said("pdffonts", path).splitlines()[2:]]
    assert fonts
    for line in fonts:
        assert "Type" not in line[1:3] or "3" not in line[1:4], line  # a Type 3 font is a drawing of letters
        assert line[-5] == "yes", line  # embedded
    assert titles(gallery[name]) <= set(said("pdftotext", path, "-").split())


@EACH
def test_an_svg_is_xml_with_its_words_as_text_and_says_what_it_shows(gallery, name, tmp_path):
    figure = gallery[name]
    root = ET.parse(figure.save(tmp_path / "figure.svg", preset="nature-single")).getroot()
    assert float(root.attrib["width"].removesuffix("pt")) == pytest.approx(89 / 25.4 * 72, abs=0.01)
    words = {word for text in root.iter(f"{SVG}text") for word in "".join(text.itertext()).split()}
    assert titles(figure) <= words
    assert root.attrib["aria-label"] == figure.alt


@EACH
def test_a_png_is_as_wide_as_its_dpi_says(gallery, name, tmp_path):
    with Image.open(gallery[name].save(tmp_path / "figure.png", preset="ieee-single", dpi=60)) as picture:
        assert picture.width == 210
        assert len(picture.getcolors(1 << 20) or []) > 4
        assert json.loads(picture.text["Source"])["numbers_sha256"] == numbers.sha256(gallery[name])


@EACH
def test_an_eps_has_its_width_its_truetype_letters_and_no_date(gallery, name, tmp_path, caplog):
    text = gallery[name].save(tmp_path / "figure.eps", preset="icml").read_text("latin-1")
    assert text.startswith("%!PS-Adobe-3.0 EPSF-3.0")
    right = float(re.search(r"%%HiResBoundingBox: 0\.0+ 0\.0+ ([\d.]+)", text)[1])
    assert right == pytest.approx(3.25 * 72, abs=0.5)
    assert "/FontType 42" in text
    assert "/FontType 3" not in text
    assert "CreationDate" not in text
    assert "transparency" not in caplog.text  # nothing was left to it that PostScript cannot draw


@EACH
def test_a_csv_holds_every_drawn_number_exactly(gallery, name, tmp_path):
    figure = gallery[name]
    rows = list(csv.DictReader(io.StringIO(figure.save(tmp_path / "figure.csv").read_text())))
    assert rows
    read = [float(row["value"]) for row in rows]
    drawn = [mark.z for mark in figure.marks() if isinstance(mark, Heatmap | Tiles)]
    for z in drawn:
        for value in z[np.isfinite(z)].tolist():
            assert value in read or any(mark.unreachable is not None for mark in figure.marks() if hasattr(mark, "z"))
    assert len(rows) == sum(len(list(numbers.values(mark))) for mark in figure.marks())


@EACH
def test_an_html_file_is_whole_and_says_what_it_shows(gallery, name, tmp_path):
    page = gallery[name].save(tmp_path / "figure.html").read_text()
    assert page.rstrip().endswith("</html>")
    assert "Plotly.newPlot(" in page
    assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="https?:', page)


@NEEDS_TEX
@pytest.mark.slow
def test_every_figure_as_pgf_compiles_in_a_document(gallery, tmp_path):
    body = []
    for name in NAMES:
        gallery[name].save(tmp_path / f"{name}.pgf", preset="icml")
        body.append(f"\\input{{{name}.pgf}}\\clearpage")
    words = said("pdftotext", compiled("\n".join(body), tmp_path), "-")
    for name in NAMES:
        assert titles(gallery[name]) <= set(words.split()), name


@NEEDS_TEX
def test_a_pgf_file_compiles_with_letters_that_latex_takes_as_commands(figure_of_letters, tmp_path):
    figure_of_letters.save(tmp_path / "letters.pgf", preset="icml")
    page = compiled("\\input{letters.pgf}", tmp_path)
    words = said("pdftotext", page, "-")
    for word in ("50%", "a b", "$x$", "C&D", "#1", "{e}", "g\\h"):  # TeX draws _ as a rule
        assert word in words
    assert (tmp_path / "letters-img0.png").is_file()


@pytest.fixture
def figure_of_letters(gallery) -> Figure:
    names = ("50%", "a_b", "$x$", "C&D", "#1", "{e}", "~f", "g\\h")
    values = np.arange(8.0)[None] / 8
    return registry.load("figures", "attribution_bits")(
        values, labels=names, targets=("t^2 & all",), about="50% & more"
    )


def test_pgf_without_a_tex_names_it(gallery, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"needs a TeX.*pdflatex.*texlive-latex-base.*save a pdf"):
        gallery["rollout"].save(tmp_path / "figure.pgf")
    assert not list(tmp_path.iterdir())


def test_bytes_are_the_same_in_other_processes_and_locales(tmp_path):
    code = (
        "import locale, sys; locale._override_localeconv = {'decimal_point': ',', 'thousands_sep': '.'}\n"
        "import numpy as np\n"
        "from fpt_viz.figures.rollout import rollout\n"
        "shares = np.arange(1.0, 13.0).reshape(2, 6); shares /= shares.sum(axis=1, keepdims=True)\n"
        "figure = rollout(shares, labels=list('abcdef'), about='caf\\u00e9')\n"
        "for suffix in sys.argv[2:]: figure.save(f'{sys.argv[1]}/figure.{suffix}')\n"
    )
    suffixes = [suffix for suffix in SUFFIXES if suffix != "pgf" or shutil.which("pdflatex")]
    found = []
    for i, (locale, zone, seed) in enumerate((("C", "UTC", "1"), ("C.UTF-8", "Asia/Tokyo", "2"))):
        own = {"LC_ALL": locale, "TZ": zone, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-c", code, tmp_path / str(i), *suffixes], check=True, env=os.environ | own)
        found.append({path.name: path.read_bytes() for path in (tmp_path / str(i)).iterdir()})
    assert len(found[0]) == 2 * len(suffixes) + 2 * ("pgf" in suffixes)  # which takes in pictures of cells and scale
    for name in found[0]:
        assert found[0][name] == found[1][name], name


@NEEDS_TEX
def test_two_saves_of_a_pgf_file_are_the_same_bytes(gallery, tmp_path):
    first, second = (gallery["rollout"].save(tmp_path / side / "figure.pgf") for side in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert (tmp_path / "a/figure-img0.png").read_bytes() == (tmp_path / "b/figure-img0.png").read_bytes()


@pytest.mark.skipif(shutil.which("gs") is None, reason="no ghostscript: apt-get install ghostscript")
@pytest.mark.parametrize("name", ["top_heads", "head_grid", "patch_overlay"])
def test_an_eps_shows_what_the_png_shows(gallery, name, tmp_path):
    figure = gallery[name]
    figure.save(tmp_path / "figure.eps", preset="icml")
    figure.save(tmp_path / "figure.png", preset="icml", dpi=72)
    said(
        "gs", "-q", "-dNOPAUSE", "-dBATCH", "-dEPSCrop", "-sDEVICE=png16m", "-r72", "-dGraphicsAlphaBits=4",
        "-dTextAlphaBits=4", f"-sOutputFile={tmp_path / 'eps.png'}", tmp_path / "figure.eps",
    )  # fmt: skip
    with Image.open(tmp_path / "eps.png") as eps, Image.open(tmp_path / "figure.png") as png:
        size = (min(eps.width, png.width), min(eps.height, png.height))
        both = [np.asarray(picture.convert("RGB").crop((0, 0, *size)), dtype=float) for picture in (eps, png)]
    assert np.abs(both[0] - both[1]).mean() < 9  # of 255; text, edges and hatching differ by a shade


# Presets


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_nothing_of_any_figure_runs_off_the_page(gallery, preset):
    names = NAMES if preset == "icml" else ["head_grid", "training_curves", "group_ablation", "patch_overlay"]
    for name in names:
        sheet = gallery[name].to_matplotlib(preset=preset)
        width, height = sheet.get_size_inches() * 72
        with settings(PRESETS[preset]):  # as when it is saved
            boxes = [axes.get_tightbbox() for axes in sheet.axes] + [text.get_window_extent() for text in sheet.texts]
        assert min(min(box.x0, box.y0) for box in boxes) > -0.5, name
        assert max(box.x1 for box in boxes) < width + 0.5, name
        assert max(box.y1 for box in boxes) < height + 0.5, name


def test_presets_are_as_wide_as_their_venues_say_and_name_where_that_was_read():
    widths = {
        "neurips": 5.5 * 25.4, "iclr": 5.5 * 25.4, "icml": 3.25 * 25.4, "acl": 77, "nature-single": 89,
        "nature-double": 183, "ieee-single": 88.9, "ieee-double": 181.864,
    }  # fmt: skip
    for name, width in widths.items():
        assert PRESETS[name].width_inches * 25.4 == pytest.approx(width, abs=0.01)
        assert PRESETS[name].headed is False
    assert {"slides", "poster", *widths} <= set(PRESETS)
    assert all(preset.source for preset in PRESETS.values())


def test_letters_of_nature_are_5_to_7_points(gallery):
    for name in ("head_grid", "ablation_effects"):
        sheet = gallery[name].to_matplotlib(preset="nature-single")
        sizes = [text.get_fontsize() for text in sheet.findobj(lambda each: hasattr(each, "get_fontsize"))]
        words = [text.get_text() for text in sheet.findobj(lambda each: hasattr(each, "get_fontsize"))]
        used = [size for size, word in zip(sizes, words, strict=True) if word.strip()]
        assert min(used) >= 5
        assert max(used) <= 7


def test_every_field_of_a_preset_can_be_another(gallery, tmp_path):
    path = gallery["head_view"].save(
        tmp_path / "a.svg", preset="neurips", width_mm=60.0, font_size=6.0, font_family="DejaVu Serif", headed=True
    )
    root = ET.parse(path).getroot()
    assert float(root.attrib["width"].removesuffix("pt")) == pytest.approx(60 / 25.4 * 72, abs=0.01)
    text = path.read_text()
    assert "DejaVu Serif" in text
    assert gallery["head_view"].title in text
    low = gallery["patch_overlay"].to_matplotlib(preset=PRESETS["neurips"].changed(max_height_mm=50.0))
    assert low.get_figheight() * 25.4 < 51


def test_bad_pages_are_errors_that_say_what_would_do(gallery, tmp_path):
    figure = gallery["rollout"]
    with pytest.raises(ConfigError, match=r"no font 'Comic Sans'.*STIXGeneral"):
        figure.save(tmp_path / "a.pdf", font_family="Comic Sans")
    with pytest.raises(ConfigError, match="font_size must lie between 3 and 200 points, got 0"):
        figure.save(tmp_path / "a.pdf", font_size=0.0)
    with pytest.raises(UnknownNameError, match=r"no file type 'gif'.*There are: csv, eps, html, pdf, pgf, png, svg"):
        figure.save(tmp_path / "a.pdf", format="gif")
    assert not list(tmp_path.iterdir())
    assert figure.save(tmp_path / "b.txt", format="svg").read_bytes().startswith(b"<?xml")


def test_no_permission_to_write_is_one_error_that_names_the_file(gallery, tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(FptVizError, match=r"figure\.csv could not be written"):
        gallery["rollout"].save(tmp_path / "file" / "figure.csv")


# Text too long


def long_words() -> Figure:
    names = [f"a very long name of a token that no column of a journal can hold number {i}" for i in range(4)]
    names[2] = "averylongnamewithoutanyspaceinitthatcannotbebrokenatawordandsomustbebrokeninside" * 2
    values = np.array([[0.5, -0.2, 0.1, 0.3], [0.1, 0.2, -0.4, 0.6]])
    figure: Figure = registry.load("figures", "attribution_bits")(
        values, labels=names, targets=names[:2], unit=names[3], about=names[2]
    )
    return figure


@pytest.mark.parametrize("preset", ["icml", "paper", "nature-single"])
def test_text_too_long_for_the_column_is_shrunk_or_wrapped_and_never_cut(preset, tmp_path):
    figure = long_words()
    sheet = figure.to_matplotlib(preset=preset)
    width, height = sheet.get_size_inches() * 72
    boxes = [axes.get_tightbbox() for axes in sheet.axes] + [text.get_window_extent() for text in sheet.texts]
    assert min(min(box.x0, box.y0) for box in boxes) > -0.5
    assert max(box.x1 for box in boxes) < width + 0.5
    assert max(box.y1 for box in boxes) < height + 0.5
    shown = "".join(text.get_text() for text in sheet.axes[0].get_yticklabels())
    assert "".join(shown.split()) == "".join("".join(word.split()) for word in figure.panels[0].marks[0].y_labels)


def test_the_page_of_the_documentation_tells_every_preset_as_it_is():
    text = (Path(__file__).parents[2] / "docs/figures.md").read_text(encoding="utf-8")
    told = {}
    for names, widths, letters, _ in re.findall(r"^\| (`.*`) \| (.*mm) \| (.*) \| (.*) \|$", text, re.MULTILINE):
        every = names.replace("`", "").split(", ")
        sizes = [float(size) for size in re.findall(r"([\d.]+) pt", letters)] * len(every)
        told |= {
            name: (float(width.removesuffix(" mm")), size)
            for name, width, size in zip(every, widths.split(", "), sizes, strict=False)
        }
    assert told == {
        name: (pytest.approx(preset.width_inches * 25.4), preset.font_size) for name, preset in PRESETS.items()
    }


@pytest.mark.parametrize("preset", ["icml", "neurips"])
def test_words_on_many_bars_do_not_run_into_each_other(runs, preset):
    bars = [replace(runs[i % 2], config={**runs[i % 2].config, "trained": [str(i)]}) for i in range(14)]
    figure: Figure = registry.load("figures", "run_comparison")(bars)
    assert "numbers on bars: percent" in figure.note
    sheet = figure.to_matplotlib(preset=preset)
    with settings(PRESETS[preset]):
        boxes = [text.get_window_extent() for text in sheet.axes[0].texts if re.fullmatch(r"\d+\.\d", text.get_text())]
    assert len(boxes) == 14
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_long_words_are_broken_behind_the_signs_that_hold_them_together():
    told = in_lines("trained (input+layer_norm+output) twice", 16)
    assert told == ["trained (input+", "layer_norm+", "output) twice"]
    assert in_lines("a long-known name", 12) == ["a long-known", "name"]
    assert in_lines("in (0\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}1)", 8) == [
        "in",
        "(0\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}1)",
    ]
    assert in_lines("x" * 20, 8) == ["x" * 8, "x" * 8, "x" * 4]
    assert in_lines("x" * 20, 8, break_words=False) == ["x" * 20]
