"""The examples in the pages on reading states and on attribution run as they stand."""

from __future__ import annotations

import re

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("page", ["reading_states", "attribution"])
def test_the_example_of_the_page_runs(repository, page, capsys):
    text = (repository / "docs" / f"{page}.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)

    exec(code, {})

    wanted = {"reading_states": "MLP2", "attribution": "integrated gradients ("}
    assert wanted[page] in capsys.readouterr().out
