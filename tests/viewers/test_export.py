"""Figures on paper and on the screen: exact width, real text, the same bytes, the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
import shutil
import subprocess
import sys
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
from PIL import Image
import pypdf
import pytest

from fpt_viz.errors import ConfigError, FptVizError, UnknownNameError
from fpt_viz.export import (
    PRESETS,
    SCALES,
    Bars,
    Colours,
    Figure,
    Heatmap,
    HLine,
    Line,
    Panel,
    Points,
    Tiles,
    VLine,
    _layout,
    colours,
)

Z = np.array([[0.1, 0.7, 0.2], [0.0, 0.25, 0.75]], dtype=np.float32)
SVG = "{http://www.w3.org/2000/svg}"


def heatmap_figure(**changes: object) -> Figure:
    mark = Heatmap(
        z=Z,
        x_labels=("alpha", "beta", "gamma"),
        y_labels=("read", "$x$"),
        colours=Colours(vmin=0.0, vmax=1.0, label="weight"),
        text=(("0.10", "0.70", "0.20"), ("0.00", "0.25", "0.75")),
        boxed=((0, 1),),
        dotted=((1, 2),),
    )
    panel = Panel(marks=(mark,), x_title="key (is read)", y_title="query (reads)")
    fields = {
        "title": "A heatmap",
        "alt": "largest weight 0.75",
        "panels": (panel,),
        "note": "a note",
        "source": {"run": 7},
    }
    return Figure(**{**fields, **changes})


def chart_figure() -> Figure:
    x = np.arange(30)
    first = Panel(
        marks=(
            HLine(at=0.5, label="chance"),
            HLine(at=0.52, label="copying"),
            Line(x=x, y=x / 30, low=x / 40, high=x / 25, label="one run", markers=True),
            Line(x=x, y=x / 60, series=1, faint=True),
            Points(x=x[:2], y=x[:2] / 9, low=x[:2] / 10, high=x[:2] / 8, label="points", hollow=True, text=("p", "q")),
            VLine(at=4.0, label="here"),
        ),
        y_range=(0.0, 1.0),
        x_title="steps",
    )
    values = np.array([0.9, 0.4])
    bars = Bars(values=values, low=values - 0.1, high=values + 0.1, series=(0, 1), text=("90 %", "40 %"))
    second = Panel(marks=(bars,), x_ticks=((0.0, 1.0), ("left", "right")), title="bars")
    return Figure(title="Charts", alt="two charts", panels=(first, second), columns=2)


@pytest.fixture(params=[heatmap_figure, chart_figure], ids=["heatmap", "chart"])
def figure(request: pytest.FixtureRequest) -> Figure:
    made: Figure = request.param()
    return made


def page_width_mm(path: Path) -> float:
    return float(pypdf.PdfReader(path).pages[0].mediabox.width) / 72 * 25.4


@pytest.mark.parametrize(
    "preset", [name if name == "paper" else pytest.param(name, marks=pytest.mark.slow) for name in sorted(PRESETS)]
)
def test_pdf_page_is_as_wide_as_the_preset(figure, preset, tmp_path):
    path = figure.save(tmp_path / "figure.pdf", preset=preset)
    assert page_width_mm(path) == pytest.approx(PRESETS[preset].width_inches * 25.4, abs=1e-3)


def test_width_mm_is_the_width_of_pdf_svg_and_png(figure, tmp_path):
    assert page_width_mm(figure.save(tmp_path / "figure.pdf", width_mm=89.0)) == pytest.approx(89, abs=1e-3)
    svg = ET.parse(figure.save(tmp_path / "figure.svg", width_mm=89.0)).getroot()
    assert float(svg.attrib["width"].removesuffix("pt")) / 72 * 25.4 == pytest.approx(89, abs=1e-3)
    with Image.open(figure.save(tmp_path / "figure.png", width_mm=50.8, dpi=200)) as png:
        assert png.width == 400


def test_pdf_fonts_are_embedded_truetype_and_its_text_is_text(tmp_path):
    path = heatmap_figure().save(tmp_path / "figure.pdf")
    reader = pypdf.PdfReader(path)
    fonts = [font.get_object() for font in reader.pages[0]["/Resources"]["/Font"].values()]
    assert fonts
    for font in fonts:
        [inner] = font["/DescendantFonts"]  # a type 42 font is a composite font with TrueType outlines
        assert font["/Subtype"] == "/Type0"
        assert inner.get_object()["/Subtype"] == "/CIDFontType2"
        assert "/FontFile2" in inner.get_object()["/FontDescriptor"].get_object()
    words = reader.pages[0].extract_text()
    for word in ("alpha", "gamma", "$x$", "key (is read)", "query (reads)", "0.75", "A heatmap"):
        assert word in words


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no poppler: apt-get install poppler-utils")
def test_another_reader_finds_the_text_of_a_pdf_and_its_fonts(tmp_path):
    path = heatmap_figure().save(tmp_path / "figure.pdf")
    words = subprocess.run(["pdftotext", path, "-"], check=True, capture_output=True, text=True).stdout
    assert {"alpha", "beta", "gamma", "read"} <= set(words.split())
    [*_, font] = subprocess.run(["pdffonts", path], check=True, capture_output=True, text=True).stdout.splitlines()
    assert "TrueType" in font
    assert "yes" in font  # embedded


def test_svg_text_is_text(tmp_path):
    root = ET.parse(heatmap_figure().save(tmp_path / "figure.svg")).getroot()
    words = {"".join(text.itertext()) for text in root.iter(f"{SVG}text")}
    assert {"alpha", "$x$", "key (is read)", "0.75"} <= words
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == "largest weight 0.75"


@pytest.mark.parametrize("suffix", ["pdf", "svg", "png", "html"])
def test_two_exports_of_a_figure_are_the_same_bytes(figure, suffix, tmp_path):
    first = figure.save(tmp_path / f"first.{suffix}").read_bytes()
    again = type(figure)(**vars(figure)).save(tmp_path / f"second.{suffix}").read_bytes()
    assert first == again
    assert b"/CreationDate" not in first  # two saves within a second would not tell
    assert b"dc:date" not in first


def test_an_export_is_the_same_whatever_the_session_has_set(tmp_path):
    plain = heatmap_figure().save(tmp_path / "plain.pdf").read_bytes()
    with mpl.rc_context({"savefig.bbox": "tight", "pdf.fonttype": 3, "font.size": 30, "figure.dpi": 50}):
        before = dict(mpl.rcParams)
        assert heatmap_figure().save(tmp_path / "changed.pdf").read_bytes() == plain
        assert dict(mpl.rcParams) == before


def test_exports_carry_source_and_alt_text(tmp_path):
    figure = heatmap_figure(source={"run": "xor", "seed": 3}, alt="naïve “words”")
    pdf = pypdf.PdfReader(figure.save(tmp_path / "figure.pdf")).metadata
    assert json.loads(pdf["/Keywords"])["source"] == {"run": "xor", "seed": 3}
    assert pdf["/Subject"] == "naïve “words”"
    with Image.open(figure.save(tmp_path / "figure.png")) as png:
        assert json.loads(png.text["Source"])["source"] == {"run": "xor", "seed": 3}
        assert png.text["Description"] == "naïve “words”"
    root = ET.parse(figure.save(tmp_path / "figure.svg")).getroot()
    words = [text for node in root.iter() for text in (node.text or "",)]
    assert "naïve “words”" in words
    assert any("seed" in text and "xor" in text for text in words)


def test_both_renderers_draw_the_arrays_of_the_figure():
    figure = heatmap_figure()
    [image] = figure.to_matplotlib().axes[0].images
    np.testing.assert_array_equal(np.asarray(image.get_array()), Z)
    trace = figure.to_plotly().data[0]
    np.testing.assert_array_equal(trace.z, Z)
    assert image.get_interpolation() == "none"
    assert trace.coloraxis == "coloraxis"
    axis = figure.to_plotly().layout.coloraxis
    assert (image.norm.vmin, image.norm.vmax) == (axis.cmin, axis.cmax) == (0, 1)
    [drawn] = figure.data["panel 0"]
    np.testing.assert_array_equal(drawn["z"], Z)


def test_row_0_is_at_the_top_of_both_renderers():
    figure = heatmap_figure()
    low, high = figure.to_matplotlib().axes[0].get_ylim()
    assert low > high
    low, high = figure.to_plotly().layout.yaxis.range
    assert low > high


def test_both_renderers_paint_a_value_in_the_same_colour():
    figure = heatmap_figure()
    [image] = figure.to_matplotlib().axes[0].images
    scale = figure.to_plotly().layout.coloraxis.colorscale
    for value in (0.0, 0.25, 0.75, 1.0):
        stops = {round(at, 6): colours.rgb(colour) for at, colour in scale}
        assert image.cmap(image.norm(value))[:3] == pytest.approx(stops[value], abs=0.01)


def test_tiles_put_each_matrix_where_its_corner_is_and_nothing_between():
    z = np.arange(2 * 3 * 2 * 4, dtype=float).reshape(2, 3, 2, 4) / 48
    names = tuple(tuple(f"L{r}H{c}" for c in range(3)) for r in range(2))
    tiles = Tiles(
        z=z, captions=names, row_labels=("0", "1"), column_labels=("0", "1", "2"), x_labels=tuple("abcd"),
        y_labels=("p", "q"), colours=Colours(vmin=0.0, vmax=1.0, label="w"),
    )  # fmt: skip
    canvas = tiles.canvas()
    for row, column in np.ndindex(2, 3):
        y, x = tiles.corner(row, column)
        np.testing.assert_array_equal(canvas[y : y + 2, x : x + 4], z[row, column])
    assert np.isfinite(canvas).sum() == z.size


@pytest.mark.parametrize("suffix", ["pdx", "gif", ""])
def test_unknown_file_type_is_an_error_that_lists_those_there_are(suffix, tmp_path):
    with pytest.raises(UnknownNameError, match="There are: csv, eps, html, pdf, pgf, png, svg") as told:
        heatmap_figure().save(tmp_path / f"figure.{suffix}")
    assert ("Did you mean 'pdf'" in str(told.value)) == (suffix == "pdx")
    assert not list(tmp_path.iterdir())


def test_bad_preset_width_and_dpi_are_errors_that_say_what_would_do(tmp_path):
    with pytest.raises(UnknownNameError, match=r"Did you mean 'slides'.*paper-wide"):
        heatmap_figure().save(tmp_path / "figure.pdf", preset="slide")
    with pytest.raises(ConfigError, match="between 20 and 2000 millimetres, got -4"):
        heatmap_figure().save(tmp_path / "figure.pdf", width_mm=-4.0)
    with pytest.raises(ConfigError, match="dpi must lie between"):
        heatmap_figure().save(tmp_path / "figure.png", dpi=0)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_one_error_and_leaves_the_old_one(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(FptVizError, match="could not be written"):
        heatmap_figure().save(tmp_path / "file" / "figure.pdf")
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("field", ["title", "alt"])
def test_a_figure_without_words_is_refused(field):
    with pytest.raises(ConfigError, match="needs a title and an alt text"):
        heatmap_figure(**{field: "  "})


def test_a_heatmap_with_too_few_labels_is_refused():
    with pytest.raises(ConfigError, match=r"shape \(2, 3\) wants as many labels, got 2 and 1"):
        Heatmap(z=Z, x_labels=("a",), y_labels=("b", "c"), colours=Colours(vmin=0.0, vmax=1.0, label="w"))


def test_a_notebook_gets_plotly_a_still_picture_and_the_alt_text():
    bundle = heatmap_figure()._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.plotly.v1+json", "text/html", "text/plain"}
    assert bundle["text/plain"] == "largest weight 0.75"
    assert 'alt="largest weight 0.75"' in bundle["text/html"]
    assert "http" not in bundle["text/html"].split("base64,")[0]
    json.dumps(bundle, allow_nan=False)


def test_words_of_a_figure_cannot_become_markup():
    mark = Heatmap(
        z=Z, x_labels=("</script>", "<b>", "&"), y_labels=("p", "q"), colours=Colours(vmin=0.0, vmax=1.0, label="<i>w")
    )
    panels = (Panel(marks=(mark,), x_title="<script>alert(2)"),)
    page = heatmap_figure(title="<script>alert(1)</script>", alt='"><img src=x>', panels=panels).to_html()
    assert "<script>alert" not in page
    assert page.count("</script>") == heatmap_figure().to_html().count("</script>")
    shown = json.loads(page.split('Plotly.newPlot("figure", ')[1].split(");</script>")[0].join("[]"))
    assert shown[1]["xaxis"]["ticktext"][0] == "&lt;/script&gt;"  # plotly shows its own few tags, and no label as one
    assert "<img" not in page


def lightness(colour: tuple[float, float, float]) -> float:
    """CIE L* of an sRGB colour, 0 to 100 (CIE 15, IEC 61966-2-1)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    y = float(np.dot([0.2126, 0.7152, 0.0722], linear))
    return 116 * y ** (1 / 3) - 16 if y > (6 / 29) ** 3 else y * (29 / 3) ** 3


def test_scales_change_evenly_in_lightness():
    steps = np.diff([lightness(colours.colour_at("sequential", i / 50)) for i in range(51)])
    assert (steps < 0).all()
    middle = [lightness(colours.colour_at("diverging", i / 50)) for i in range(51)]
    assert (np.diff(middle[:26]) > 0).all()
    assert (np.diff(middle[25:]) < 0).all()
    assert set(SCALES) == {"sequential", "diverging"}


def test_series_differ_by_more_than_hue():
    styles = [colours.style(i) for i in range(7)]
    assert len({style.dash for style in styles}) == len({style.marker for style in styles}) == 7
    assert len({colours.style(i) for i in range(49)}) == 49


@pytest.mark.parametrize("scale", sorted(SCALES))
def test_words_in_cells_have_enough_contrast(scale):
    for share in np.linspace(0, 1, 41):
        behind = colours.colour_at(scale, float(share))
        light, dark = sorted((colours.luminance(behind), colours.luminance(colours.rgb(colours.text_on(behind)))))
        assert (dark + 0.05) / (light + 0.05) >= 4.5


def test_labels_moved_apart_keep_their_order_and_do_not_overlap():
    moved = _layout.spread([10.0, 0.0, 1.0, 40.0], [4.0, 4.0, 4.0, 4.0])
    assert moved == [10.0, 0.0, 4.0, 40.0]


@pytest.mark.slow
def test_nothing_drawn_runs_off_the_page(figure):
    for preset in PRESETS:
        sheet = figure.to_matplotlib(preset=preset)
        width, height = sheet.get_size_inches() * 72
        for box in [axes.get_tightbbox() for axes in sheet.axes] + [text.get_window_extent() for text in sheet.texts]:
            assert box.x0 > -0.5
            assert box.y0 > -0.5
            assert box.x1 < width + 0.5
            assert box.y1 < height + 0.5


def test_viewers_import_no_producer_no_transformers_and_no_drawing_library_until_they_draw():
    code = """
import sys
from fpt_viz import export, registry, report
for name in registry.names("figures"):
    registry.load("figures", name)
ours = {"errors", "records", "registry", "analysis", "export", "figures", "report"}
loaded = {name.split(".")[1] for name in sys.modules if name.startswith("fpt_viz.")}
drawing = {"plotly", "matplotlib", "transformers", "captum"} & set(sys.modules)
print(sorted(loaded - ours), sorted(drawing))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "[] []"
