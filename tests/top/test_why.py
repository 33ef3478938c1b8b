"""What asks why the heads do it, on the command line and on a run that was saved."""

from __future__ import annotations

import torch

from fpt_viz.records import PatternShift


def test_what_moved_is_measured_and_saved_beside_a_run(call, run_folder):
    said = call("measure", "what_moved", run_folder, "--json", "--set", "n_examples=4", 'heads=["L1H0"]').json()
    assert said["result"]["groups"] == ["input", "position", "layer_norm"]
    shift = PatternShift.load(run_folder / "what_moved.safetensors")
    assert shift.heads == ((1, 0),)
    torch.testing.assert_close(shift.share.sum(0), torch.ones(1).double(), atol=1e-6, rtol=0)
    assert shift.source["run"]
    assert shift.source["step"] == 6


def test_a_run_that_lost_its_start_is_refused(call, run_folder):
    (run_folder / "adapter_initial.safetensors").unlink()
    said = call("measure", "what_moved", run_folder)
    assert said.code == 2
    assert "adapter_initial.safetensors is missing" in said.err
