"""What stands around figures in a paper: captions, alt texts, and a page of LaTeX that takes the figures in."""

from __future__ import annotations

from collections.abc import Mapping

from fpt_viz.export.description import Description


def said_of(figure: Description) -> dict[str, str]:
    """Title, caption (plain and for LaTeX) and alt text of ``figure``."""
    return {
        "title": figure.title,
        "caption": figure.caption(),
        "caption_latex": figure.caption(latex=True),
        "alt": figure.alt,
    }


def captions(figures: Mapping[str, Description]) -> str:
    """The captions and alt texts of ``figures``, by file name, as a page of Markdown."""
    parts = [f"## {stem}\n\n{figure.caption()}\n\nAlt text: {figure.alt}\n" for stem, figure in figures.items()]
    return "# Captions\n\nDrafted from the data; read them before they are printed.\n\n" + "\n".join(parts)


def latex_page(figures: Mapping[str, Description], suffix: str) -> str:
    """A document with every figure at its own size, its caption and label, and the table of the kit.

    Args:
        figures: By file name without suffix; the files lie in ``figures/``.
        suffix: Of the files.
    """
    body = []
    for stem, figure in figures.items():
        taken = f"\\input{{figures/{stem}.pgf}}" if suffix == "pgf" else f"\\includegraphics{{figures/{stem}.{suffix}}}"
        body.append(
            f"\\begin{{figure}}[htbp]\n\\centering\n{taken}\n\\caption{{{figure.caption(latex=True)}}}\n"
            f"\\label{{fig:{stem}}}\n\\end{{figure}}\n\\clearpage\n"
        )
    return (
        "% Every figure and table of the kit, each at its own size; copy from here what the paper needs.\n"
        "\\documentclass{article}\n\\usepackage[margin=15mm]{geometry}\n\\usepackage{graphicx,booktabs,pgf}\n"
        "\\begin{document}\n" + "\n".join(body) + "\n\\input{tables/comparison.tex}\n\\end{document}\n"
    )
