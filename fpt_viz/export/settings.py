"""Values as ``--set`` of the command line writes and reads them, and which of them an option takes."""

from __future__ import annotations

import json
import math
import tomllib
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np

MOST_LETTERS = 4_096
"""Of one setting; a longer one is no command that anybody would run."""


def as_setting(value: Any) -> str | None:
    """``value`` as ``--set`` reads it; None where that cannot say it, or only at great length."""
    if _left(value, MOST_LETTERS) < 0:
        return None
    text = _toml(_plain(value))
    if text is None or len(text) > MOST_LETTERS:
        return None
    try:
        read = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None
    return text if repr(read) == repr(_plain(value)) else None


def read_setting(text: str) -> Any:
    """What ``text``, without blanks around it, stands for: a value of TOML, or the text where it is none."""
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    plain = list(read) == ["value"] and isinstance(read["value"], bool | int | float | str | list)
    return read["value"] if plain else text


def fits(value: Any, hint: Any) -> bool:
    """Whether an option of the type ``hint`` takes ``value``, as :func:`read_setting` or a file gives it."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(fits(value, member) for member in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if getattr(hint, "array_type", None) is not None:  # a shape of jaxtyping's
        return hasattr(value, "ndim")
    if hint in (int, float):
        return isinstance(value, int if hint is int else (int, float)) and not isinstance(value, bool)
    plain = origin or hint
    is_text = isinstance(value, str)
    return isinstance(value, plain) and (plain is str) == is_text


def _left(value: Any, letters: int) -> int:
    """What is left of ``letters`` after ``value``, at least a letter an entry; below 0 as soon as nothing is."""
    if isinstance(value, str):
        return letters - len(value)
    for each in value if isinstance(value, list | tuple | range) else ():
        letters = _left(each, letters - 1)
        if letters < 0:
            break
    return letters


def _plain(value: Any) -> Any:
    """``value`` with numpy's scalars as Python's, and every sequence as a list."""
    if isinstance(value, np.generic):
        return value.item()
    return [_plain(each) for each in value] if isinstance(value, list | tuple | range) else value


def _toml(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else {"nan": "nan", "inf": "inf", "-inf": "-inf"}[repr(value)]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        parts = [_toml(each) for each in value]
        return None if None in parts else f"[{', '.join(part for part in parts if part is not None)}]"
    return None
