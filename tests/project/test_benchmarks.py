"""What `make bench` writes is read and compared, bad files are one line, and operations and bytes counted exactly."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
import json
from pathlib import Path
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parents[2]


def of_benchmarks(name: str):
    """A module of ``benchmarks/``, which is no installed package."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return import_module(f"benchmarks.{name}")


measured, comparing, counting, machine = map(of_benchmarks, ("_measured", "_compare", "_counting", "_machine"))
Measured = measured.Measured
HERE = {
    "device": "chip",
    "processor": "chip",
    "cores": 2,
    "threads": 1,
    "clock": "wall",
    "torch": "2",
    "load_average": 0,
}
STEP = Measured(name="step", value=2.0, unit="s")
RATE = Measured(name="rate", value=100, unit="examples/s", better="higher")


def written(path: Path, *numbers, benchmark: str = "training", **machine_of) -> Path:
    measured.save(path, HERE | machine_of, {benchmark: numbers}, {})
    return path


def test_numbers_are_read_as_they_were_written(tmp_path):
    noted = replace(STEP, note="of five")
    told, found = measured.load(written(tmp_path / "results/a.json", noted, RATE))
    assert told == HERE
    assert found == {("training", "step"): noted, ("training", "rate"): RATE}


@pytest.mark.parametrize(
    ("number", "after", "ratio", "verdict"),
    [
        (STEP, 1.0, 0.5, "better"),
        (STEP, 3.0, 1.5, "worse"),
        (STEP, 2.04, 1.02, ""),
        (RATE, 150, 1.5, "better"),
        (RATE, 50, 0.5, "worse"),
        (replace(STEP, better="neither"), 3.0, 1.5, ""),
        (replace(STEP, value=0), 3.0, None, ""),
    ],
)
def test_a_ratio_is_after_over_before_and_its_verdict_is_by_what_is_better(tmp_path, number, after, ratio, verdict):
    old, new = written(tmp_path / "a", number), written(tmp_path / "b", replace(number, value=after))
    warned, [change] = comparing.compare(old, new)
    assert (change.ratio, change.verdict, warned) == (ratio, verdict, [])


def test_other_machines_busy_ones_and_numbers_of_one_file_are_told(tmp_path):
    old = written(tmp_path / "a", STEP, RATE, replace(STEP, name="size", unit="MB"))
    new = written(tmp_path / "b", STEP, replace(STEP, name="size", unit="MiB"), device="another", load_average=7.25)
    warned, changes = comparing.compare(old, new)
    assert [change.after.name for change in changes] == ["step"]
    assert warned == [
        "device differs: chip before, another after",
        f"{new} was begun beside other programs: a load of 7.2 on 2 cores",
        "2 numbers are in one of the files only, or in another unit, and are left out",
    ]


BAD = {
    "no JSON": ("{", "is no JSON"),
    "a list": ("[]", "is not what `make bench` writes: wanted schema 'fpt_viz.benchmarks.1', got None"),
    "another schema": ('{"schema": "fpt_viz.run.3"}', "got 'fpt_viz.run.3'"),
    "no results": ('{"schema": "fpt_viz.benchmarks.1"}', "a result is not whole: KeyError 'results'"),
    "a result without a value": (
        json.dumps(
            {"schema": measured.SCHEMA, "machine": {}, "results": [{"benchmark": "x", "name": "y", "unit": ""}]}
        ),
        "a result is not whole: TypeError",
    ),
    "a value that is no number": (
        json.dumps(
            {
                "schema": measured.SCHEMA,
                "machine": {},
                "results": [{"benchmark": "x", "name": "y", "unit": "", "value": "1"}],
            }
        ),
        "y: value is '1', wanted a number",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_no_result_is_one_line(tmp_path, capsys, case):
    text, words = BAD[case]
    (tmp_path / "bad.json").write_text(text)
    good = written(tmp_path / "good.json", STEP)
    for pair in ((tmp_path / "bad.json", good), (good, tmp_path / "bad.json")):
        assert comparing.main([str(path) for path in pair]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        [line] = said.err.splitlines()
        assert line.startswith(str(tmp_path / "bad.json"))
        assert words in line


def test_a_missing_file_and_files_with_nothing_in_common_are_one_line(tmp_path, capsys):
    old = written(tmp_path / "a", STEP)
    new = written(tmp_path / "b", STEP, benchmark="capture")
    for arguments, words in (
        ([old, tmp_path / "c"], f"{tmp_path / 'c'} cannot be read: No such file or directory"),
        ([old, new], f"{old} and {new} have no number in common: the first holds training, the second capture"),
        ([old, ""], "two files are compared: make bench-compare A=old.json B=new.json"),
    ):
        assert comparing.main([str(argument) for argument in arguments]) == 2
        assert capsys.readouterr().err == f"{words}\n"


def test_the_table_shows_both_values_and_the_ratio(tmp_path, capsys):
    old, new = written(tmp_path / "a", STEP, RATE), written(tmp_path / "b", replace(STEP, value=0.5), RATE)
    assert comparing.main([str(old), str(new)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if " step " in line)
    assert row.replace("│", " ").split() == ["training", "step", "2.00", "s", "0.500", "s", "0.25", "x", "better"]


def test_an_unknown_benchmark_is_one_line_that_names_them_all():
    command = [sys.executable, "-m", "benchmarks", "nonsense"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("no benchmark 'nonsense'; there are: ")
    assert "roofline" in line


def test_a_benchmark_that_fails_is_told_and_loses_no_number(tmp_path, monkeypatch, capsys):
    run = of_benchmarks("__main__")
    path = tmp_path / "found.json"

    def fake(name: str, found: list) -> None:
        if name == "data":
            raise RuntimeError("no data")
        found.append(STEP)

    monkeypatch.setattr(run, "_run", fake)
    assert run.main(["--json", str(path), "data", "capture"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "data failed: RuntimeError: no data"
    assert measured.load(path)[1] == {("capture", "step"): STEP}
    assert json.loads(path.read_text())["failed"] == {"data": "RuntimeError: no data"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (9.999, "10.0"),
        (99.96, "100"),
        (1234.5, "1,234"),
        (1e-6, "1e-06"),
        (-3.2, "-3.20"),
    ],
)
def test_values_are_printed_with_three_digits(value, text):
    assert measured.digits(value) == text


def attention(n_queries: int, n_keys: int, *, fused: bool) -> tuple[int, int]:
    """Operations counted in a forward and in a backward pass of attention, on 2 x 3 heads of 16."""
    query = torch.randn(2, 3, n_queries, 16, requires_grad=True)
    key, value = (torch.randn(2, 3, n_keys, 16, requires_grad=True) for _ in range(2))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION if fused else SDPBackend.MATH):
        with counting.Counting() as forward:
            found = scaled_dot_product_attention(query, key, value)
        with counting.Counting() as backward:
            found.sum().backward()
    assert bool(forward.found.fused) == fused
    assert not forward.found.not_counted | backward.found.not_counted
    return forward.found.n_operations, backward.found.n_operations


def test_the_cpus_fused_attention_counts_as_the_same_in_plain_products():
    """FlopCounterMode counts it as nothing. Going back, it forms the scores once more: five products, not four."""
    sizes = 2 * 3 * 20 * 30 * 16
    assert attention(20, 30, fused=False) == (2 * 2 * sizes, 4 * 2 * sizes)
    assert attention(20, 30, fused=True) == (2 * 2 * sizes, 5 * 2 * sizes)
    query = torch.randn(1, 1, 4, 8)
    with FlopCounterMode(display=False) as theirs, sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        scaled_dot_product_attention(query, query, query)
    assert theirs.get_total_flops() == 0, "then the formula of ours is no longer needed"


def test_operations_of_a_network_are_those_of_flop_counter_mode_and_of_its_products():
    network = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 4), nn.LayerNorm(4))
    inputs = torch.randn(5, 8)
    with FlopCounterMode(display=False) as theirs:
        network(inputs).sum().backward()
    with counting.Counting() as ours:
        network(inputs).sum().backward()
    found = ours.found
    assert found.n_operations == theirs.get_total_flops() > 0
    assert found.n_operations == sum(machine.operations(shape) * n for (shape, _), n in found.products.items())
    assert found.products[(5, 8, 32), torch.float32] == 1
    assert not found.fused


def test_packed_linear_layers_count_as_plain_ones():
    if not torch.backends.mkldnn.is_available():
        pytest.fail("this build of torch has no oneDNN, so the test cannot run here")
    inputs, weight = torch.randn(5, 8), torch.randn(32, 8)
    with counting.Counting() as found:
        torch.ops.mkldnn._linear_pointwise(inputs, weight.to_mkldnn(), None, "none", [], "")
    assert found.found.n_operations == 2 * 5 * 8 * 32
    assert found.found.products == {((5, 8, 32), torch.float32): 1}


@pytest.mark.parametrize(
    ("call", "n_floats"),
    [
        (lambda x: x + x, 10 * 3),  # reads two, writes one
        (lambda x: x.add_(1), 10 * 2),
        (lambda x: x.view(2, 5).t()[0].detach(), 0),
        (lambda x: torch.empty_like(x), 0),
        (lambda x: x.zero_(), 10),
        (lambda x: x[:1].expand(10) + x, 1 + 10 + 10),  # what a stride of zero repeats is read once
        (lambda x: torch._foreach_add_([x, x.clone()], 1), 2 * 10 + 2 * 2 * 10),
    ],
)
def test_bytes_are_what_is_read_and_written(call, n_floats):
    x = torch.zeros(10)
    with counting.Counting() as found:
        call(x)
    assert found.found.n_bytes == 4 * n_floats


def test_values_read_back_and_products_without_a_formula_are_told():
    weight = torch.randn(1, 1, 3, 3)
    with counting.Counting() as found:
        float(torch.ones(()))
        torch.mv(weight[0, 0], torch.ones(3))
        torch.nn.functional.bilinear(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 2, 2))
    assert found.found.n_reads_to_host == 1
    assert found.found.not_counted == {"mv", "_trilinear"}
