from __future__ import annotations

from fpt_viz.tasks import load_task


def test_the_papers_code_shows_49_tokens_of_16_pixels_from_0_to_1_unchanged(made_data, rng):
    task = load_task("mnist")
    inputs = task.sample(64, rng).inputs

    assert (task.n_tokens, task.n_values, task.output_shape) == (49, 16, (10,))
    assert (task.augment, task.flips) == (False, False)
    assert (inputs.min(), inputs.max()) == (0, 1)
    assert [task.n_examples(split) for split in ("train", "validation", "test")] == [600, 5000, 400]
