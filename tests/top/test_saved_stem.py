"""What a measure is saved as tells its words from its usual ones, so that one does not overwrite the other."""

from __future__ import annotations

import pytest

from fpt_viz.cli.measuring import saved_stem
from fpt_viz.measures.ablate_heads import ablate_heads
from fpt_viz.measures.patch_activations import patch_activations


@pytest.mark.parametrize(
    ("function", "options", "stem"),
    [
        (patch_activations, {}, "patch_activations"),
        (patch_activations, {"site": "resid_pre", "n_examples": 8}, "patch_activations"),
        (patch_activations, {"site": "z", "split": "validation"}, "patch_activations_z_validation"),
        (ablate_heads, {"kind": "mean", "split": "test"}, "ablate_heads_mean"),
        (ablate_heads, {"heads": ["L0H1"]}, "ablate_heads"),
    ],
)
def test_words_that_are_not_the_usual_ones_are_in_the_name(function, options, stem):
    assert saved_stem(function.__name__, function, options) == stem
