"""Text as LaTeX prints it, letter for letter."""

from __future__ import annotations

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "…": r"\ldots{}", "“": "``", "”": "''",
    "\N{EN DASH}": "--", "\N{EM DASH}": "---", "\N{NO-BREAK SPACE}": "~",
    "\N{LEFT SINGLE QUOTATION MARK}": "`", "\N{RIGHT SINGLE QUOTATION MARK}": "'",
}  # fmt: skip
_MATHS = {
    "\N{MINUS SIGN}": "-", "\N{MULTIPLICATION SIGN}": r"\times", "±": r"\pm", "≤": r"\leq", "≥": r"\geq",
    "≠": r"\neq", "≈": r"\approx", "→": r"\rightarrow", "←": r"\leftarrow", "·": r"\cdot", "∞": r"\infty",
    "°": r"^\circ", "Δ": r"\Delta", "\N{GREEK SMALL LETTER ALPHA}": r"\alpha", "β": r"\beta", "λ": r"\lambda",
    "μ": r"\mu", "\N{GREEK SMALL LETTER SIGMA}": r"\sigma",
}  # fmt: skip
_SPECIAL |= {letter: rf"\ensuremath{{{command}}}" for letter, command in _MATHS.items()}


def escaped(text: str) -> str:
    """``text`` with every letter that LaTeX would take as a command written so that it is printed instead."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def breakable(text: str) -> str:
    """:func:`escaped`, and a line may also end behind a sign that holds words together, as in ``layer_norm+input``."""
    return "".join(f"{escaped(letter)}\\allowbreak{{}}" if letter in "_=+/,;:-" else escaped(letter) for letter in text)
