from __future__ import annotations

from collections import Counter
import random

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
import torch

from fpt_viz.errors import ConfigError, FptVizError, SourceError
from fpt_viz.tasks import _listops_files, load_task
from fpt_viz.tasks._listops import Grammar, drawn, length_shares, n_expressions

SPLITS = ("train", "validation", "test")
SYMBOLS = [*"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]", "pad"]


def value(tokens: list[str]) -> int:
    """The value of an expression, read off by recursion; it must be whole."""
    found, rest = argument(tokens)
    assert rest == []
    return found


def argument(tokens: list[str]) -> tuple[int, list[str]]:
    """The value of the first argument, and what comes after it."""
    first, rest = tokens[0], tokens[1:]
    if first.isdigit():
        return int(first), rest
    values = []
    while rest[0] != "]":
        found, rest = argument(rest)
        values.append(found)
    assert values
    if first == "[MIN":
        return min(values), rest[1:]
    if first == "[MAX":
        return max(values), rest[1:]
    if first == "[SM":
        return sum(values) % 10, rest[1:]
    assert first == "[MED"
    return int(np.median(values)), rest[1:]  # as LRA's own evaluator


def tree(tokens: list[str], start: int = 0) -> tuple[dict[int, list[int]], int]:
    """Of each closing bracket, its operator's arguments; and the last place of the expression that begins at start."""
    if tokens[start].isdigit():
        return {}, start
    found: dict[int, list[int]] = {}
    place, arguments = start + 1, []
    while tokens[place] != "]":
        inner, end = tree(tokens, place)
        found |= inner
        arguments.append(end)
        place = end + 1
    return found | {place: arguments}, place


def expressions(batch):
    return [[SYMBOLS[i] for i in row[mask].tolist()] for row, mask in zip(batch.inputs, batch.mask, strict=True)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_expression(rng: random.Random, depth: int = 1) -> list[str]:
    """By another generator than the task's own."""
    parts = [random_expression(rng, depth + 1) if rng.random() < 0.2 and depth < 5 else [str(rng.randrange(10))]
             for _ in range(rng.randint(1, 6))]  # fmt: skip
    return [rng.choice(SYMBOLS[10:14]), *(token for part in parts for token in part), "]"]


def with_round_brackets(tokens: list[str]) -> str:
    """The text that LRA's writer makes of an expression: each argument, and the end, is joined to all before it."""
    return written(tokens)[0]


def written(tokens: list[str]) -> tuple[str, list[str]]:
    """The text of the first argument, and what comes after it."""
    text, rest = tokens[0], tokens[1:]
    if text.isdigit():
        return text, rest
    while rest[0] != "]":
        inner, rest = written(rest)
        text = f"( {text} {inner} )"
    return f"( {text} ] )", rest[1:]


# ---------------------------------------------------------------------------------------------------------------------
# Generated expressions


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"max_tokens": 300, "min_tokens": 60}, marks=pytest.mark.slow),
        {"max_depth": 3, "max_args": 3},
    ],
)
def test_the_targets_of_10000_examples_are_those_of_a_recursive_evaluator(options):
    batch = load_task("listops", **options).sample(10_000, generator())

    assert batch.targets[:, 0].tolist() == [value(tokens) for tokens in expressions(batch)]


def test_a_median_of_an_even_number_is_the_mean_of_the_middle_two_rounded_down():
    assert value(["[MED", "1", "8", "4", "3", "]"]) == 3
    assert value(["[MED", "1", "8", "4", "]"]) == 4


def test_all_operators_arguments_digits_and_answers_occur():
    batch = load_task("listops").sample(5000, generator())
    found = Counter(token for tokens in expressions(batch) for token in tokens)
    numbers = {len(arguments) for tokens in expressions(batch) for arguments in tree(tokens)[0].values()}

    assert set(found) == set(SYMBOLS[:-1])
    assert numbers == set(range(2, 11))
    assert set(batch.targets[:, 0].tolist()) == set(range(10))


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 30), st.integers(0, 60), st.integers(3, 12), st.integers(2, 12), st.sampled_from(SPLITS))
def test_lengths_depths_and_arguments_are_within_the_options(min_tokens, more, max_depth, max_args, split):
    options = {"min_tokens": min_tokens, "max_tokens": min_tokens + more, "max_depth": max_depth, "max_args": max_args}
    try:
        task = load_task("listops", **options)
    except ConfigError:
        return
    batch = task.sample(20, generator(), split)

    for tokens in expressions(batch):
        depths = np.cumsum([token.startswith("[") - (token == "]") for token in tokens])
        assert min_tokens <= len(tokens) <= min_tokens + more
        assert depths.max() <= max_depth - 1
        assert all(2 <= len(arguments) <= max_args for arguments in tree(tokens)[0].values())


def tree_length(rng: random.Random, depth: int, max_depth: int, max_args: int) -> int:
    """Tokens of a random argument, one by one as LRA's generator draws it."""
    if depth >= max_depth or rng.random() > 0.25:
        return 1
    return 2 + sum(tree_length(rng, depth + 1, max_depth, max_args) for _ in range(rng.randint(2, max_args)))


def test_lengths_have_the_distribution_of_a_generator_that_draws_one_tree_at_a_time():
    grammar, rng = Grammar(4, 64, 5, 6), random.Random(0)
    slow = [2 + sum(tree_length(rng, 2, 5, 6) for _ in range(rng.randint(2, 6))) for _ in range(40_000)]
    _, fast = drawn(40_000, generator(), grammar)
    shares = length_shares(grammar)

    for low, high in ((4, 6), (6, 10), (10, 20), (20, 40), (40, 65)):
        wanted = shares[low:high].sum()
        spread = 5 * np.sqrt(wanted / 40_000)
        assert abs(np.mean([low <= n < high for n in slow]) - wanted) < spread
        assert abs(np.sum((low <= fast) & (fast < high)) / 40_000 - wanted) < spread


def test_the_number_of_expressions_is_that_of_a_count_by_hand():
    assert n_expressions(Grammar(4, 4, 2, 2)) == 4 * 10 * 10
    assert n_expressions(Grammar(4, 5, 2, 3)) == 4 * (10**2 + 10**3)
    nested = 400  # of the form [OP d d ]
    assert n_expressions(Grammar(4, 20, 3, 2)) == 4 * (10 + nested) ** 2
    assert n_expressions(Grammar(5, 7, 3, 2)) == 4 * 2 * 10 * nested


def test_digits_and_operators_are_equally_frequent():
    rows, _ = drawn(20_000, generator(), Grammar(4, 64, 10, 10))
    counts = np.bincount(rows.ravel(), minlength=16)

    for part in (counts[:10], counts[10:14]):
        np.testing.assert_allclose(part / part.sum(), 1 / len(part), atol=0.01)


def test_the_split_of_an_expression_does_not_depend_on_the_lengths_allowed():
    short, long = load_task("listops", max_tokens=16), load_task("listops", max_tokens=200)
    seen = {
        split: {tuple(tokens) for tokens in expressions(short.sample(3000, generator(), split))} for split in SPLITS
    }

    for split in SPLITS:
        others = set().union(*(seen[other] for other in SPLITS if other != split))
        assert not others & {tuple(tokens) for tokens in expressions(long.sample(3000, generator(1), split))}


def test_splits_are_the_same_on_every_machine():
    batch = load_task("listops", max_tokens=12).distinct(3, "test", seed=1)

    assert [" ".join(tokens) for tokens in expressions(batch)] == [
        "[MAX 9 0 [MIN 9 7 0 ] 6 ]",
        "[MIN 2 6 3 9 3 5 5 3 ]",
        "[MIN 7 4 9 [MIN 0 9 ] ]",
    ]


def test_half_of_the_expressions_train_and_a_quarter_each_validate_and_test():
    task = load_task("listops")
    counts = [len(task._accepted(20_000, generator(), index)) for index in range(3)]

    np.testing.assert_allclose(np.array(counts) / sum(counts), [0.5, 0.25, 0.25], atol=0.02)


def test_batches_are_as_wide_as_their_longest_example_and_distinct_ones_as_the_task():
    task = load_task("listops")
    batch = task.sample(4, generator())

    assert batch.inputs.shape[1] == batch.mask.sum(1).max() < 64
    assert (batch.inputs[~batch.mask] == 15).all()
    assert task.distinct(4, "test").inputs.shape[1] == task.n_tokens == 64


def test_a_closing_bracket_needs_its_operators_arguments():
    batch = load_task("listops").sample(200, generator())
    needs = load_task("listops").needs(batch.inputs)

    for tokens, found in zip(expressions(batch), needs, strict=True):
        expected = torch.zeros_like(found)
        for query, keys in tree(tokens)[0].items():
            expected[query, keys] = True
        assert torch.equal(found, expected)


def test_needs_of_an_expression_written_out():
    task = load_task("listops")
    inputs = torch.tensor([[SYMBOLS.index(token) for token in ["[MAX", "2", "[SM", "9", "4", "]", "0", "]", "pad"]]])

    pairs = torch.nonzero(task.needs(inputs)[0]).tolist()

    assert pairs == [[5, 3], [5, 4], [7, 1], [7, 5], [7, 6]]
    assert task.labels(inputs[0]) == ["[MAX", "2", "[SM", "9", "4", "]", "0", "]", "pad"]


def test_trivial_solvers_do_as_well_as_stated():
    task = load_task("listops")
    answers: dict[str, Counter[int]] = {}
    for tokens in expressions(task.sample(10_000, generator(5), "test")):
        answers.setdefault(tokens[0], Counter())[value(tokens)] += 1
    whole = sum(answers.values(), Counter())

    assert task.trivial["most frequent answer"] == pytest.approx(max(whole.values()) / 10_000, abs=0.02)
    by_operator = sum(max(counts.values()) for counts in answers.values()) / 10_000
    assert task.trivial["most frequent answer of the first operator"] == pytest.approx(by_operator, abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 3}, "max_tokens of listops must be at least 4, got 3"),
        ({"max_depth": 1}, "max_depth of listops must be at least 2"),
        ({"max_depth": 99}, "max_depth of listops must be at most 20"),
        ({"min_tokens": 65}, "min_tokens of listops must be at most max_tokens, got 65 and 64"),
        ({"max_depth": 2, "max_args": 2, "min_tokens": 4}, "listops has 400 expressions of 4 to 64 tokens.*allow more"),
        ({"max_depth": 3, "min_tokens": 115, "max_tokens": 122}, "of the random expressions .* have 115 to 122 tokens"),
        ({"data": "net"}, "data of listops must be one of 'generated', 'lra'"),
    ],
)
def test_options_that_leave_nothing_to_draw_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        load_task("listops", **options)


def test_more_distinct_expressions_than_can_be_drawn_are_refused():
    task = load_task("listops", max_tokens=10, max_depth=3, max_args=2, min_tokens=4)

    with pytest.raises(ConfigError, match=r"100000 distinct expressions .* at most 84050 can be drawn"):
        task.distinct(100_000, "test")


# ---------------------------------------------------------------------------------------------------------------------
# As the paper's code showed them


def without_brackets(tokens):
    kept = [SYMBOLS.index(token) for token in tokens if token != "]"]
    return tuple((kept + [14] * 512)[:512])


def test_the_paper_s_loader_drops_brackets_cuts_and_pads_and_masks_nothing():
    options = {"max_tokens": 900, "min_tokens": 400}
    lossy, whole = (load_task("listops", **options, paper_compatible=flag) for flag in (True, False))
    shown = [row for i in range(3) for row in lossy._accepted(300, generator(), i).rows.tolist()]
    expected = [
        without_brackets([SYMBOLS[symbol] for symbol in row if symbol != 15])
        for i in range(3)
        for row in whole._accepted(300, generator(), i).rows.tolist()
    ]
    batch = lossy.sample(30, generator())

    assert sorted(map(tuple, shown)) == sorted(expected)
    assert any(14 in row for row in shown)
    assert not all(14 in row for row in shown)
    assert batch.mask is None
    assert batch.inputs.shape == (30, 512)


def test_what_the_paper_s_loader_shows_is_labelled_so():
    task = load_task("listops", paper_compatible=True)
    batch = task.sample(2, generator())

    assert task.note == "paper's lossy loader: brackets dropped, cut or padded to 512 tokens, padding not masked"
    assert load_task("listops").note == ""
    assert task.options()["paper_compatible"]
    assert {*task.labels(batch.inputs[0])} <= {*"0123456789", "MIN", "MAX", "MED", "SM", "pad"}
    assert (task.n_symbols, task.n_tokens) == (15, 512)
    assert task.needs(batch.inputs) is None


# ---------------------------------------------------------------------------------------------------------------------
# LRA's files


def line_of(tokens: list[str], target: int | None = None) -> str:
    return f"{with_round_brackets(tokens)}\t{value(tokens) if target is None else target}\r\n"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Files in LRA's format, each expression once, and the expressions in them."""
    rng, seen, folder = random.Random(1), set(), tmp_path / "listops"
    folder.mkdir()
    expected = {}
    for name, n in (("train", 60), ("val", 20), ("test", 20)):
        expected[name] = []
        while len(expected[name]) < n:
            tokens = random_expression(rng)
            if tuple(tokens) not in seen:
                seen.add(tuple(tokens))
                expected[name].append(tokens)
        text = "Source\tTarget\r\n" + "".join(map(line_of, expected[name]))
        (folder / f"basic_{name}.tsv").write_bytes(text.encode())
    monkeypatch.setenv("FPT_VIZ_DATA", str(tmp_path))
    return folder, expected


def test_round_brackets_are_written_as_lra_writes_them():
    tokens = ["[MAX", "2", "[SM", "9", "4", "]", "0", "]"]

    assert with_round_brackets(tokens) == "( ( ( ( [MAX 2 ) ( ( ( [SM 9 ) 4 ) ] ) ) 0 ) ] )"


def test_lra_s_files_are_read_as_they_are(made):
    _, expected = made
    task = load_task("listops", data="lra", max_tokens=400)

    for split, name in zip(SPLITS, ("train", "val", "test"), strict=True):
        whole = task.distinct(1000, split)
        assert sorted(expressions(whole)) == sorted(expected[name])
        assert whole.targets[:, 0].tolist() == [value(tokens) for tokens in expressions(whole)]
        assert task.n_examples(split) == len(expected[name])
        drawn_ones = expressions(task.sample(50, generator(), split))
        assert {*map(tuple, drawn_ones)} <= {*map(tuple, expected[name])}


def test_trivial_solvers_of_lra_s_files_are_counted_on_its_test_file(made):
    answers = [value(tokens) for tokens in made[1]["test"]]

    trivial = load_task("listops", data="lra", max_tokens=400).trivial
    assert trivial["most frequent answer"] == max(map(answers.count, answers)) / len(answers)


def test_lra_s_files_through_the_paper_s_loader(made):
    task = load_task("listops", data="lra", max_tokens=400, paper_compatible=True)
    found = {tuple(row.tolist()) for row in task.distinct(100, "test").inputs}
    expected = set(map(without_brackets, made[1]["test"]))

    assert found == expected
    rows = [{row.numpy().tobytes() for row in task.distinct(100, split).inputs} for split in SPLITS]
    assert not (rows[0] & rows[1]) | (rows[0] & rows[2]) | (rows[1] & rows[2])


def test_other_files_in_the_same_place_are_read_anew(made):
    folder, _ = made
    assert load_task("listops", data="lra", max_tokens=400).n_examples("test") == 20
    (folder / "basic_test.tsv").write_bytes(b"Source\tTarget\r\n( ( ( [MAX 1 ) 7 ) ] )\t7\r\n")

    assert load_task("listops", data="lra", max_tokens=400).n_examples("test") == 1


GOOD = "( ( ( [MAX 1 ) 7 ) ] )\t7"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "wanted the header Source, tab, Target, found an empty file"),
        (b"Source,Target\n", "wanted the header"),
        (b"Source\tTarget\n", "wanted one or more expressions, found none"),
        (b"\x80\x04\x95 a pickle", "wanted the header"),
        (GOOD.replace("\t7", "\t8"), "line 2: wanted the expression's value 7, found 8"),
        (GOOD.replace("\t7", "\t17"), "line 2: wanted an expression, a tab and a digit, found '17'"),
        (GOOD.replace("\t7", ""), "line 2: .*found no tab"),
        ("\t7", "line 2: wanted"),
        (GOOD.replace("[MAX", "[FIRST"), r"line 2: wanted \[MIN, \[MAX, \[MED, \[SM, \].*\[FIRST"),
        (GOOD.replace("1 )", "1)"), "line 2: .*one space apart"),
        (GOOD.replace("( ", "", 1), "line 2: .*matching round brackets"),
        ("( ( [MAX 1 ) 7 )\t7", "line 2: .*brackets that do not match"),
        ("( [MAX ] )\t7", "line 2: .*brackets that do not match"),
        ("7\t7", "line 2: .*brackets that do not match"),
        ("[MAX 1 7 ] ]\t7", "line 2: .*brackets that do not match"),
        ("[MAX 1 7 ] [MAX 1 7 ]\t7", "line 2: .*brackets that do not match"),
        (with_round_brackets(["[MAX", *"777777777777", "]"]) + "\t7", "14 tokens, longer than max_tokens=12"),
        (f"{GOOD}\r\n{GOOD}", "line 2 of basic_train.tsv is line 3 of basic_train.tsv too"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_lra_s_is_refused_with_line_expectation_and_finding(made, content, message):
    if isinstance(content, str):
        content = b"Source\tTarget\r\n" + content.encode()
    for name in ("train", "val", "test"):
        (made[0] / f"basic_{name}.tsv").write_bytes(b"Source\tTarget\n( ( ( [MIN 1 ) %d ) ] )\t1\n" % (len(name) + 2))
    (made[0] / "basic_train.tsv").write_bytes(content)

    with pytest.raises(SourceError, match=message) as caught:
        load_task("listops", data="lra", max_tokens=12).n_examples("train")
    assert str(made[0]) in str(caught.value)


def test_an_expression_that_two_splits_share_is_refused(made):
    (made[0] / "basic_test.tsv").write_bytes((made[0] / "basic_val.tsv").read_bytes())

    with pytest.raises(SourceError, match=r"line \d+ of basic_val.tsv is line \d+ of basic_test.tsv too"):
        load_task("listops", data="lra", max_tokens=400).n_examples("test")


def test_absent_files_are_named_with_where_to_get_them(made, monkeypatch, tmp_path):
    (made[0] / "basic_val.tsv").unlink()
    with pytest.raises(SourceError, match=r"has no basic_val.tsv.*lra_release"):
        load_task("listops", data="lra").n_examples("train")

    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("FPT_VIZ_DATA", str(tmp_path / "empty"))
    with pytest.raises(
        SourceError, match=r"basic_train.tsv, basic_val.tsv, basic_test.tsv; they are not in.*lra_release"
    ):
        load_task("listops", data="lra").n_examples("train")


def test_mutated_files_raise_nothing_but_the_librarys_errors(made):
    folder, _ = made
    path, rng = folder / "basic_val.tsv", random.Random(0)
    whole = path.read_bytes()
    refused = 0
    for _ in range(1000):
        mutated = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            kind, place = rng.randrange(3), rng.randrange(len(mutated))
            if kind == 0:
                mutated[place] = rng.choice(b"()[] 0123456789MINAXEDS\t\r\n\x00\x0b\xff")
            elif kind == 1:
                del mutated[place : place + rng.randint(1, 40)]
            else:
                mutated[place:place] = rng.randbytes(rng.randint(1, 4))
        path.write_bytes(mutated)
        try:
            _listops_files._read_file(path, 400)
        except FptVizError:
            refused += 1
    assert refused > 900
