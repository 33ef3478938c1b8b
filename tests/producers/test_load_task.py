from __future__ import annotations

import pytest
import torch

from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.tasks import load_task

OWN_TASK = '''
from __future__ import annotations
from dataclasses import dataclass
from fpt_viz.tasks.bit_xor import BitXor

__all__ = ["Own"]

@dataclass(frozen=True)
class Own(BitXor):
    """Bit XOR with an option of its own."""

    colour: str = "red"
'''


def test_an_unknown_task_is_named_with_its_nearest():
    with pytest.raises(UnknownNameError, match=r"no task 'bit_xr'\. Did you mean 'bit_xor'"):
        load_task("bit_xr")


def test_a_path_loads_a_task_whose_name_is_a_path_that_loads_it_again(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN_TASK)
    task = load_task(str(path), n_bits=3, colour="blue")

    assert task.sample(2, torch.Generator()).inputs.shape == (2, 6, 1)
    assert load_task(task.name, **task.options()) == task


def test_a_file_without_a_task_is_refused(tmp_path):
    path = tmp_path / "other.py"
    path.write_text("__all__ = ['number']\nnumber = 3\n")

    with pytest.raises(ConfigError, match="its public name 3 is no subclass of"):
        load_task(str(path))


def test_an_option_without_default_must_be_given(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        OWN_TASK.replace("class Own(BitXor)", "class Own(BitXor)")
        .replace("@dataclass(frozen=True)", "@dataclass(frozen=True, kw_only=True)")
        .replace('str = "red"', "str")
    )

    with pytest.raises(ConfigError, match="needs the option colour, which has no default"):
        load_task(str(path))
