from __future__ import annotations

import torch

from fpt_viz.analysis.sink_mass import sink_mass


def test_sink_mass_is_the_share_of_the_first_token():
    weights = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])

    assert torch.equal(sink_mass(weights[None, None, None]), torch.tensor([[[[0.7, 0.0, 1.0]]]]))
