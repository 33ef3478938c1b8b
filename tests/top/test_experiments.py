"""The paper's tables: each is whole at every scale and passes at smoke, and nothing that failed is hidden."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import diverging_runs
import pytest

from fpt_viz import registry
from fpt_viz.backbones import preset_names
from fpt_viz.config import RunConfig
from fpt_viz.engines._job import note_failure
from fpt_viz.engines.base import Job, Measure
from fpt_viz.engines.in_process import InProcess
from fpt_viz.errors import ConfigError, RecordError, RunFolderError, TrainingError, UnknownNameError
from fpt_viz.experiments._facts import Facts, Failure, look_at
from fpt_viz.experiments._systems import FULL
from fpt_viz.experiments.base import SCALES, SOURCES, Experiment
from fpt_viz.loading import load_model
from fpt_viz.records import load_run, store
from fpt_viz.reproduce import Choice, Result, load_plan, plan_of, reproduce, result_in
from fpt_viz.run_folder import _check_same

NAMES = registry.names("experiments")
LISTED = {
    *(f"table_{n}" for n in (1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 21)),
    "attention_xor", "attention_memory", "learning_rate",
}  # fmt: skip
SMOKE = Choice(scale="smoke")
FILES = {f"table.{suffix}" for suffix in ("md", "html", "csv", "tex")} | {"figure.pdf", "figure.svg", "plan.json"}


def experiment(name: str) -> Experiment:
    found = registry.load("experiments", name)
    assert isinstance(found, Experiment)
    return found


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of all experiments go, so that each is made once."""
    return tmp_path_factory.mktemp("experiments")


def test_every_table_of_the_paper_that_is_listed_is_there():
    assert set(NAMES) == LISTED


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_cells_name_what_there_is(name, scale):
    cells = experiment(name).cells(scale)
    assert cells
    for cell in cells:
        if cell.config is None:
            continue
        options = {option.name for option in fields(registry.load("tasks", cell.config.task.name))}
        assert set(cell.config.task.options) <= options
        backbone = cell.config.backbone.name
        assert backbone in preset_names() or backbone.partition(":")[0] in registry.names("backbones")
        assert len(cell.seeds) >= (1 if scale == "smoke" else 3)
        assert cell.config.train.validate_every


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_what_a_cell_is_tested_against_is_in_the_table(name, scale):
    cells = experiment(name).cells(scale)
    there = {(cell.system, cell.task) for cell in cells}
    assert all((cell.versus, cell.task) in there for cell in cells if cell.versus)
    assert not any(cell.versus == cell.system for cell in cells)


@pytest.mark.parametrize("name", NAMES)
def test_others_numbers_have_a_source_that_may_be_quoted(name):
    told = [cell.published for scale in SCALES for cell in experiment(name).cells(scale) if cell.published]
    assert {published.source for published in told} <= set(SOURCES)
    assert "MEM" not in SOURCES
    steps = experiment(name).quantity == "steps"
    assert all(published.value > 1 if steps else 0 <= published.value <= 1 for published in told)


def test_the_papers_numbers_are_those_of_its_table():
    """Four cells, typed from the table by hand."""
    found = {(cell.system, cell.task): cell.published for cell in experiment("table_9").cells("paper")}
    for key, value in {
        ("statistics only", "cifar10"): 0.565,
        ("statistics only", "remote_homology"): 0.110,
        ("random frozen", "bit_memory"): 0.758,
        ("FPT", "mnist"): 0.98,
    }.items():
        published = found[key]
        assert published is not None
        assert (published.value, published.source) == (pytest.approx(value), "S1")


@pytest.mark.parametrize("scale", ["laptop", "paper"])
def test_learning_rates_are_swept_over_five_and_three_seeds(scale):
    rates: dict[tuple[str, str], set[float]] = {}
    for cell in experiment("learning_rate").cells(scale):
        assert cell.config is not None
        rates.setdefault((cell.system, cell.task), set()).add(cell.config.train.learning_rate)
        assert len(cell.seeds) >= 3
    assert all(len(found) >= 5 for found in rates.values())
    assert {system for system, _ in rates} == {
        f"{freezing} {init}" for freezing in ("frozen", "unfrozen") for init in ("pretrained", "random")
    }


def passes(name: str, pool: Path) -> Result:
    result = reproduce(name, out=pool, engine=InProcess(), choice=SMOKE)
    assert result.failures == []
    assert {path.name for path in result.folder.iterdir()} >= FILES
    table = (result.folder / "table.md").read_text()
    for row in result.rows:
        assert row.cell.system in table.replace("\\", "")
        assert (row.mean is None) == bool(row.cell.why_not) or experiment(name).quantity == "steps"
        if row.published:
            assert f"[{row.published.source}]" in table
    return result


def test_a_table_passes_at_smoke(pool):
    passes("table_14", pool)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"table_14"}))
def test_every_table_passes_at_smoke(name, pool):
    passes(name, pool)


@pytest.mark.slow
def test_a_finished_run_is_not_repeated_and_serves_other_tables(pool):
    ended: list[str] = []
    reproduce("table_14", out=pool, engine=InProcess(), choice=SMOKE)
    reproduce("table_14", out=pool, engine=InProcess(), choice=SMOKE, tell=lambda *told: ended.append("again"))
    assert ended == []
    shared = plan_of("table_13", experiment("table_13"), Choice(scale="smoke", tasks=("digits",)), pool)
    n_new = len(list(shared.jobs()))
    assert n_new <= shared.n_runs() - 2  # FPT, and with feed-forward layers


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes(pool):
    folder = reproduce("table_14", out=pool, engine=InProcess(), choice=SMOKE).folder
    before = {name: (folder / name).read_bytes() for name in FILES}
    result_in(folder).save()
    assert {name: (folder / name).read_bytes() for name in FILES} == before


def test_a_figure_of_which_nothing_is_left_to_draw_is_removed(pool, tmp_path):
    import shutil

    result = reproduce("table_14", out=pool, engine=InProcess(), choice=SMOKE)
    copy = Path(shutil.copytree(result.folder, tmp_path / "copy"))
    assert {path.name for path in copy.glob("figure.*")} >= {"figure.pdf", "figure.pdf.json", "figure.svg"}
    replace(result, folder=copy, figure=None).save()
    assert not list(copy.glob("figure.*"))
    assert (copy / "table.md").exists()


@pytest.fixture(scope="module")
def diverged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, list[str]]:
    """A list of which one run diverges and one cannot be built, and what each ended as."""
    told: list[str] = []
    out = tmp_path_factory.mktemp("diverged")
    result = reproduce(
        diverging_runs.__file__, out=out, engine=InProcess(), choice=SMOKE, tell=lambda _i, _n, o: told.append(o.status)
    )
    return result, told


def test_a_failed_run_is_shown_and_stops_no_other(diverged):
    result, told = diverged
    assert told == ["failed", "failed", "finished"]
    wild, absent, well = result.rows
    assert (wild.mean, absent.mean) == (None, None)
    assert well.mean is not None
    assert [failure.kind for row in result.rows for failure in row.failed] == ["diverged", "failed"]
    table = (result.folder / "table.md").read_text()
    assert "seed 0 diverged after" in table
    assert "seed 0 failed" in table
    assert "train.learning" in table  # the whole message, with its cure
    [row] = [row for row in result.to_json()["rows"] if row["system"] == "wild"]
    assert row["failed"][0]["kind"] == "diverged"


def test_what_diverged_is_left_at_that_and_what_failed_is_tried_again(diverged):
    result, _ = diverged
    plan = plan_of(diverging_runs.__file__, diverging_runs.diverging, SMOKE, result.folder.parent)
    assert [job.config.backbone.init for job in plan.jobs()] == ["pretrained"]
    assert [job.config.train.learning_rate for job in plan.jobs(retry=True)] == [1e30, 1e-3]


def test_a_damaged_run_is_shown_with_its_cure(pool, tmp_path):
    import shutil

    folder = reproduce("table_14", out=pool, engine=InProcess(), choice=SMOKE).folder
    shutil.copytree(pool / "runs", tmp_path / "runs")
    copy = Path(shutil.copytree(folder, tmp_path / folder.name))
    plan = load_plan(copy)
    path = plan.entries[0].runs[0]
    (path / "steps.jsonl").write_text("cut off")
    [failure] = result_in(copy).rows[0].failed
    assert failure.kind == "damaged"
    assert "steps.jsonl was truncated or altered" in failure.message
    assert f"remove {path}" in failure.message


@pytest.mark.slow
def test_a_damaged_run_is_not_said_to_be_tried_again(call, pool, tmp_path):
    import shutil

    reproduce("table_14", out=pool, engine=InProcess(), choice=SMOKE)
    shutil.copytree(pool, tmp_path / "pool")
    path = load_plan(tmp_path / "pool/table_14-smoke").entries[0].runs[0] / "steps.jsonl"
    path.write_text("cut off")
    said = call("reproduce", "table_14", "--scale", "smoke", "--out", tmp_path / "pool", "--engine", "in_process")
    assert said.code == 1
    assert said.out.splitlines()[-1].startswith("1 run damaged: left as found")
    assert "tries again" not in said.out
    assert path.read_text() == "cut off"


def test_a_plan_or_result_that_is_sealed_without_all_that_it_tells_is_an_error(pool, tmp_path):
    import shutil

    folder = reproduce("table_14", out=pool, engine=InProcess(), choice=SMOKE).folder
    shutil.copytree(pool / "runs", tmp_path / "runs")
    copy = Path(shutil.copytree(folder, tmp_path / folder.name))
    run = load_plan(copy).entries[0].runs[0]
    for path, name in ((run / "result.json", "evaluation"), (copy / "plan.json", "entries")):
        data = store.unsealed(store.read_json(path), path)
        store.write_json(path, store.sealed({key: value for key, value in data.items() if key != name}))
    with pytest.raises(RecordError, match=r"result.json is no whole result of a run: evaluation missing"):
        load_run(run)
    with pytest.raises(RecordError, match=r"plan.json is no whole plan of an experiment \(KeyError: 'entries'\)"):
        load_plan(copy)


def test_an_accuracy_on_train_that_is_not_there_is_shown_as_damaged(run_folder):
    store.write_json(run_folder / "evaluate_train.json", store.sealed({"n_examples": 8}))
    failure = look_at(run_folder, 0)
    assert isinstance(failure, Failure)
    assert failure.kind == "damaged"
    assert "evaluate_train.json is no whole evaluation (KeyError: 'accuracy')" in failure.message


def test_a_finished_run_without_its_measure_is_shown_with_its_cure(run_folder):
    """Weights that are gone cannot be measured any more."""
    from fpt_viz.engines._job import carry_out, shed_weights

    shed_weights(run_folder)
    measure = Measure(name="evaluate", split="train", n_examples=8)
    carry_out(Job(config=RunConfig.load(run_folder / "config.toml"), folder=run_folder, measures=(measure,)))
    assert isinstance(look_at(run_folder, 0), Facts)
    failure = look_at(run_folder, 0, (measure,))
    assert isinstance(failure, Failure)
    assert failure.kind == "not measured"
    assert "adapter.safetensors is missing" in failure.message
    assert f"remove {run_folder}" in failure.message


@pytest.mark.parametrize("name", ["table_1", "table_10"])
def test_the_papers_full_transformer_is_measured_on_train_whatever_table_makes_it(name):
    there = {cell.task: cell.measures for cell in experiment("table_7").cells("paper") if cell.system == FULL}
    shared = [cell for cell in experiment(name).cells("paper") if cell.system == FULL and cell.task in there]
    assert shared
    assert all(cell.measures == there[cell.task] for cell in shared)


@pytest.mark.slow
def test_what_a_network_had_learned_before_is_told(tmp_path):
    choice = Choice(scale="smoke", tasks=("bit_xor",))
    result = reproduce("table_2", out=tmp_path, engine=InProcess(), choice=choice)
    assert any(note.startswith("bit-memory pretrained: pretrained to ") for note in result.table.notes)
    assert result_in(result.folder).table.notes == result.table.notes
    start = load_plan(result.folder).entries[2].start
    assert start is not None
    (start / "result.json").unlink()
    note_failure(start, TrainingError("the loss is nan"))
    assert any("seed 0 diverged" in note and "the loss is nan" in note for note in result_in(result.folder).table.notes)
    plan = plan_of("table_2", experiment("table_2"), choice, tmp_path)
    assert list(plan.jobs_before()) == []
    assert [job.folder for job in plan.jobs_before(retry=True)] == [start]


def test_a_list_goes_on_where_its_folder_was_moved_or_is_spelled_otherwise(tmp_path):
    start, moved = tmp_path / "a/runs/one", tmp_path / "b/runs/one"
    config = next(plan_of("table_14", experiment("table_14"), SMOKE, tmp_path).jobs()).config
    path = tmp_path / "run"
    path.mkdir()
    store.write_bytes(path / "config.toml", on(config, start).to_toml().encode())
    _check_same(path, on(config, moved))
    with pytest.raises(RunFolderError, match="holds another run"):
        _check_same(path, on(config, tmp_path / "a/runs/two"))


def on(config: RunConfig, start: Path) -> RunConfig:
    """``config`` from the run in ``start``."""
    return replace(config, backbone=replace(config.backbone, init=str(start)))


def test_values_of_larger_tasks_say_so():
    for name, task, of in (("table_1", "bit_memory", "1,000 bits"), ("table_10", "listops", "512 tokens")):
        for scale, words in (("laptop", of), ("paper", "")):
            cells = [cell for cell in experiment(name).cells(scale) if cell.task == task and cell.published]
            assert cells
            assert {cell.published.of for cell in cells if cell.published} == {words}


def test_tasks_can_be_named_with_commas_between():
    assert not any("," in cell.task for name in NAMES for scale in SCALES for cell in experiment(name).cells(scale))


def test_listops_of_the_learning_rates_is_the_corrected_one():
    for cell in experiment("learning_rate").cells("paper"):
        assert cell.config is not None
        assert cell.task != "listops" or cell.config.task.options["paper_compatible"] is False


def test_a_plan_of_a_newer_version_is_an_error(pool, tmp_path):
    folder = reproduce("table_14", out=pool, engine=InProcess(), choice=SMOKE).folder
    data = store.unsealed(store.read_json(folder / "plan.json"), folder)
    store.write_json(tmp_path / "plan.json", store.sealed({**data, "schema": 99}))
    with pytest.raises(RecordError, match="schema 99, newer than 1"):
        load_plan(tmp_path)


def test_a_run_of_an_older_version_with_fewer_options_is_found_again(tmp_path):
    plan = plan_of("table_14", experiment("table_14"), SMOKE, tmp_path)
    job = next(plan.jobs())
    old = tmp_path / "runs/of_an_older_version"
    old.mkdir(parents=True)
    lines = [line for line in job.config.to_toml().splitlines() if not line.startswith("telemetry")]
    (old / "config.toml").write_text("\n".join(lines))
    again = plan_of("table_14", experiment("table_14"), SMOKE, tmp_path)
    assert next(again.jobs()).folder == old


def test_a_plan_of_a_users_file_runs_it_only_where_its_path_is_given(diverged):
    result, _ = diverged
    with pytest.raises(RecordError, match="give that path"):
        result_in(result.folder)
    assert len(result_in(result.folder, experiment=diverging_runs.__file__).rows) == 3


@pytest.mark.parametrize(
    ("name", "choice", "error", "words"),
    [
        ("table_1", Choice(scale="laptop", tasks=("cifar10",)), UnknownNameError, "task of table_1 at scale laptop"),
        ("table_8", Choice(scale="laptop", backbone="gpt2"), ConfigError, "table_8 is about certain backbones"),
        ("attention_xor", Choice(scale="smoke", backbone="lstm"), ConfigError, "lstm has no attention"),
        ("table_9", Choice(scale="smoke", backbone="nobody:knows"), UnknownNameError, "no backbone family 'nobody'"),
    ],
)
def test_what_an_experiment_is_not_defined_for_is_an_error(name, choice, error, words, tmp_path):
    with pytest.raises(error, match=words):
        plan_of(name, experiment(name), choice, tmp_path)


def test_another_backbone_takes_the_place_of_the_scales_own(tmp_path):
    choice = Choice(scale="smoke", backbone="gpt2-tiny-random", tasks=("bit_xor",), n_seeds=2, limit=3)
    plan = plan_of("table_1", experiment("table_1"), choice, tmp_path)
    names = [entry.cell.config.backbone.name for entry in plan.entries if entry.cell.config]
    assert names == ["gpt2-tiny-random", "gpt2-tiny-random", "lstm-tiny-random"]
    assert all(job.config.train.n_steps == 3 for job in plan.jobs())
    assert {job.config.train.seed for job in plan.jobs()} == {0, 1}


def test_a_preset_at_a_commit_takes_the_place_too(tmp_path):
    choice = Choice(scale="smoke", backbone="gpt2@main", tasks=("bit_xor",))
    plan = plan_of("table_9", experiment("table_9"), choice, tmp_path)
    assert {entry.cell.config.backbone.name for entry in plan.entries if entry.cell.config} == {"gpt2@main"}


def test_weights_that_are_not_kept_leave_a_whole_record(run_folder):
    from fpt_viz.engines._job import shed_weights

    whole = load_run(run_folder)
    shed_weights(run_folder)
    record = load_run(run_folder)
    assert record.evaluation == whole.evaluation
    assert set(record.result["weights_left_out"]) == {"adapter.safetensors", "adapter_initial.safetensors"}
    with pytest.raises(RecordError, match=r"adapter\.safetensors is missing"):
        load_model(record)


# The command


def test_reproduce_answers_rows_with_the_papers_numbers(call, pool):
    data = call("reproduce", "table_14", "--scale", "smoke", "--engine", "in_process", "--out", pool, "--json").json()
    assert {"system", "task", "seeds", "mean", "interval", "paper", "source"} <= set(data["rows"][0])
    assert [row["paper"] for row in data["rows"]] == [0.682, 0.766, 0.8]
    assert data["rows"][0]["source"].startswith("S1: ")
    assert Path(data["folder"]) == pool / "table_14-smoke"


def test_a_dry_run_measures_and_leaves_nothing(call, tmp_path):
    out = tmp_path / "none"
    words = ("reproduce", "table_16", "--scale", "smoke", "--out", out, "--dry-run", "--workers", "1")
    data = call(*words, "--json").json()
    assert not out.exists()
    assert (data["n_runs"], data["n_finished"]) == (2, 0)  # without pretrained weights two systems are one
    assert data["seconds"] > 0
    assert data["bytes"] > 0
    assert [row["n_steps"] for row in data["rows"]] == [4, 4]
    assert "2 runs to do, 0 finished: at most" in call(*words).out


@pytest.mark.slow
def test_a_list_with_a_failed_run_ends_with_exit_code_1(call, tmp_path):
    said = call("reproduce", diverging_runs.__file__, "--scale", "smoke", "--engine", "in_process", "--out", tmp_path)
    assert said.code == 1
    assert "seed 0 failed" in said.out
    assert "1 run failed; the same command tries again." in said.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("tabel_1",), "Did you mean 'table_1'"),
        (("table_1", "--scale", "huge"), "no scale 'huge'"),
        (("table_1", "--engine", "cluster"), "no engines 'cluster'"),
        (("table_1", "--workers", "0"), "workers must be at least 1"),
        (("table_1", "--seeds", "0"), "--seeds must be at least 1"),
        (("table_1", "--tasks", "cifar10"), "no task of table_1 at scale laptop 'cifar10'"),
    ],
)
def test_what_cannot_be_reproduced_is_one_line(call, words, told, tmp_path):
    said = call("reproduce", *words, "--out", tmp_path)
    assert (said.code, said.out) == (2, "")
    assert told in said.err
    assert said.err.count("\n") == 1


def test_compare_takes_the_folder_of_an_experiment(call, pool):
    folder = reproduce("table_14", out=pool, engine=InProcess(), choice=SMOKE).folder
    runs = {folder for entry in load_plan(folder).entries for folder in entry.runs.values()}
    data, same = (call("compare", *paths, "--json").json() for paths in ([folder], sorted(runs)))
    assert data == same


def test_compare_takes_a_folder_of_runs_and_tells_what_is_not_finished(call, pool):
    reproduce("table_14", out=pool, engine=InProcess(), choice=SMOKE)
    half = pool / "runs/half"
    half.mkdir()
    (half / "config.toml").write_text("half")
    try:
        data = call("compare", pool / "runs", "--json").json()
        shown = call("compare", pool / "runs").out
    finally:
        (half / "config.toml").unlink()
        half.rmdir()
    assert len(data["rows"]) >= 3
    assert data["unfinished"] == [str(half)]
    assert f"not finished, and not in the table: {half}" in shown
