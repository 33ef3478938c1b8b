from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys

from hub_server import COMMIT
import pytest
from transformers import GPT2Config, GPT2Model

import fpt_viz as fpt
from fpt_viz import hub
from fpt_viz.backbones import load_backbone
from fpt_viz.errors import ConfigError, SourceError

BIG = b"PAR1" + bytes(range(256)) * 40
DATA = {
    "plain_text/train-00000-of-00002.parquet": BIG,
    "plain_text/train-00001-of-00002.parquet": BIG[::-1],
    "plain_text/test-00000-of-00001.parquet": b"PAR1 small",
    "README.md": b"# a card",
    "old.pkl": b"\x80\x04.",
}
TRAIN = "plain_text/train-*.parquet"


@pytest.fixture
def server(hub_server):
    """The Hub of our own with a data set."""
    hub_server.files["datasets/org/pictures"] = dict(DATA)
    return hub_server


@pytest.fixture
def offline(server, monkeypatch):
    """What puts the machine off the network: nothing may be asked for from then on."""

    def go():
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
        server.asked.clear()

    return go


def pictures(**options):
    return hub.data_files("org/pictures", [TRAIN], **options)


def test_files_that_match_are_fetched_whole_with_the_commit_that_the_revision_is(server):
    files, commit = pictures()

    assert commit == COMMIT
    assert {name: path.read_bytes() for name, path in files.items()} == {
        name: content for name, content in DATA.items() if "train" in name
    }
    assert f"GET /api/datasets/org/pictures/revision/{COMMIT}" not in server.asked  # resolved once, from main


def test_small_files_are_checked_by_their_name_in_git_and_large_ones_by_sha256(server):
    files, _ = hub.data_files("org/pictures", ["plain_text/*.parquet"])

    assert files["plain_text/test-00000-of-00001.parquet"].read_bytes() == b"PAR1 small"
    for name in ("plain_text/test-00000-of-00001.parquet", "plain_text/train-00000-of-00002.parquet"):
        files[name].resolve().chmod(0o644)
        content = bytearray(files[name].read_bytes())
        content[-1] ^= 1
        files[name].resolve().write_bytes(content)
        with pytest.raises(SourceError, match=f"{name}.* is not the published file: .*, wanted "):
            hub.data_files("org/pictures", [name])
        assert hub.data_files("org/pictures", [name])[0][name].read_bytes() == DATA[name]  # fetched again


def test_a_commit_that_is_cached_is_used_without_the_network(server, offline):
    pictures()
    server.asked.clear()

    files, commit = pictures(revision=COMMIT)
    assert (len(files), commit) == (2, COMMIT)
    assert server.asked == []
    offline()
    assert pictures() == pictures(revision=COMMIT) == (files, commit)
    assert server.asked == []


def test_what_another_program_has_cached_is_used_offline(server, offline, tmp_path, monkeypatch):
    files, commit = pictures()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    refs = tmp_path / "hub" / "datasets--org--pictures" / "refs"
    refs.mkdir()
    (refs / "main").write_text(COMMIT)
    offline()

    assert pictures() == (files, commit)
    assert server.asked == []


def test_offline_without_the_files_says_so_and_how_to_get_them(server, offline):
    offline()
    for revision in (None, "main", COMMIT):
        with pytest.raises(SourceError, match=r"dataset org/pictures.* cannot be had: .*HF_HUB_OFFLINE is set\. Unset"):
            pictures(revision=revision)
    assert server.asked == []


def test_offline_with_some_of_the_files_names_the_one_that_is_missing(server, offline):
    hub.data_files("org/pictures", ["plain_text/test-*"])
    offline()

    with pytest.raises(
        SourceError, match=r"plain_text/train-00000-of-00002.parquet of dataset org/pictures at 0123456"
    ):
        pictures()


def test_a_server_that_is_away_is_done_without_where_the_files_are_cached(server, monkeypatch, caplog):
    files, commit = pictures()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there

    assert pictures() == (files, commit)
    assert "dataset org/pictures on http://127.0.0.1:9 cannot be asked" in caplog.text


def test_a_server_that_is_away_is_one_error(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(SourceError, match=r"dataset org/pictures on http://127.0.0.1:9 cannot be had: the connection "):
        pictures()


def test_a_repository_that_is_not_there_is_named(server):
    with pytest.raises(
        SourceError, match=r"dataset org/picture on http://.* cannot be had: there is no such repository"
    ):
        hub.data_files("org/picture", [TRAIN])


def test_a_revision_that_is_not_there_is_named(server):
    for revision in ("v2", "f" * 40):
        with pytest.raises(SourceError, match=rf"org/pictures at {revision} on .*: there is no such revision\. Choose"):
            pictures(revision=revision)


def test_a_name_that_no_repository_can_have_is_refused(server):
    with pytest.raises(SourceError, match=r"dataset a/b/c on .*: this is no name of a repository"):
        hub.data_files("a/b/c", [TRAIN])


def test_a_file_that_is_listed_but_not_there_is_named(server, monkeypatch):
    pictures()
    del server.files["datasets/org/pictures"]["plain_text/test-00000-of-00001.parquet"]

    with pytest.raises(
        SourceError, match=r"plain_text/test-00000-of-00001.parquet of dataset .*does not have it \(404\)"
    ):
        hub.data_files("org/pictures", ["plain_text/test-*"], revision=COMMIT)


def test_patterns_that_match_nothing_are_named_with_what_there_is(server):
    with pytest.raises(
        SourceError, match=r"org/pictures at 0123.* has no data/\*; it has README.md, old.pkl, plain_tex"
    ):
        hub.data_files("org/pictures", ["data/*"])


def test_files_that_can_hold_pickles_are_refused(server):
    with pytest.raises(SourceError, match=r"old.pkl of dataset .* is refused: only .*pickles, which can run code"):
        hub.data_files("org/pictures", ["old.*"])
    assert not any("old.pkl" in asked for asked in server.asked)


def test_too_many_requests_are_said(server):
    server.busy = True

    with pytest.raises(
        SourceError, match=r"org/pictures on .*too many requests \(429\)\. Wait some minutes, or set HF_TO"
    ):
        pictures()


def test_too_many_requests_do_not_matter_where_the_files_are_cached(server):
    files, _ = pictures()
    server.busy = True

    assert pictures()[0] == files


def test_too_many_requests_in_the_middle_are_said(server):
    hub.data_files("org/pictures", ["plain_text/test-*"])
    server.busy = True

    with pytest.raises(SourceError, match=r"train-00000-of-00002.parquet of dataset .*too many requests \(429\)"):
        pictures(revision=COMMIT)


def test_a_body_that_ends_early_is_refused_and_fetched_again_later(server):
    server.cut = {"plain_text/train-00000-of-00002.parquet"}
    with pytest.raises(
        SourceError, match=r"train-00000-of-00002.parquet of dataset org/pictures at .* was cut off .*Try"
    ):
        pictures()

    server.cut = set()
    assert pictures()[0]["plain_text/train-00000-of-00002.parquet"].read_bytes() == BIG


def test_a_small_body_that_ends_early_is_refused_too(server):
    server.cut = {"plain_text/test-00000-of-00001.parquet"}

    with pytest.raises(SourceError, match=r"test-00000-of-00001.parquet of dataset org/pictures at .* was cut off"):
        hub.data_files("org/pictures", ["plain_text/test-*"])


def test_a_wrong_checksum_is_refused_and_the_file_is_not_kept(server, tmp_path):
    server.altered = {"plain_text/train-00001-of-00002.parquet"}
    wanted = hashlib.sha256(BIG[::-1]).hexdigest()
    with pytest.raises(
        SourceError, match=rf"train-00001-of-00002.parquet .*SHA-256 [0-9a-f]{{64}}, wanted {wanted}.*again"
    ):
        pictures()
    assert not [path for path in (tmp_path / "hub").rglob("*") if wanted in path.name and path.suffix != ".lock"]

    server.altered = set()
    assert pictures()[0]["plain_text/train-00001-of-00002.parquet"].read_bytes() == BIG[::-1]


def test_a_dropped_connection_goes_on_where_it_was(server, monkeypatch):
    monkeypatch.setattr(hub.constants, "DOWNLOAD_CHUNK_SIZE", 2)
    name = "plain_text/train-00000-of-00002.parquet"
    server.dropped = {name: 1}

    assert pictures()[0][name].read_bytes() == BIG
    assert any(asked.startswith("GET") and asked.endswith(f"{name} bytes={len(BIG) // 2}-") for asked in server.asked)


def test_a_connection_that_is_always_dropped_is_one_error(server):
    server.dropped = {"plain_text/train-00000-of-00002.parquet": -1}

    with pytest.raises(
        SourceError, match=r"train-00000-of-00002.parquet of dataset .*the connection failed.*Try again"
    ):
        pictures()


def test_an_answer_that_is_no_hub_s_is_one_error(server):
    server.commit = "main"

    with pytest.raises(SourceError, match=r"wanted a commit, got 'main'; check HF_ENDPOINT"):
        pictures()


def test_progress_is_shown_on_a_terminal_only(server, monkeypatch, capfd):
    pictures()
    assert capfd.readouterr().err == ""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    hub.data_files("org/pictures", ["plain_text/test-*"])
    assert "test-00000-of-00001.parquet" in shown.getvalue()


@pytest.mark.slow
def test_the_endpoint_and_the_cache_are_those_of_the_environment(server, tmp_path):
    code = (
        "from fpt_viz.hub import data_files\n"
        f"files, commit = data_files('org/pictures', ['{TRAIN}'])\n"
        "print(commit, *map(str, files.values()))"
    )
    environment = {**os.environ, "HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path / "home")}
    for offline in ("0", "1"):
        server.asked.clear()
        told = {**environment, "HF_HUB_OFFLINE": offline}
        result = subprocess.run([sys.executable, "-c", code], env=told, capture_output=True, text=True, timeout=100)
        assert result.returncode == 0, result.stderr
        commit, *paths = result.stdout.split()
        assert commit == COMMIT
        assert all(path.startswith(str(tmp_path / "home")) for path in paths)
        assert bool(server.asked) == (offline == "0")


# ---------------------------------------------------------------------------------------------------------------------
# Backbones


@pytest.fixture
def models(server, tmp_path):
    """A tiny GPT-2 on the server under two names, and as it is."""
    network = GPT2Model(GPT2Config(n_layer=2, n_head=2, n_embd=16, n_positions=32, vocab_size=40))
    network.save_pretrained(tmp_path / "tiny")
    files = {name: (tmp_path / "tiny" / name).read_bytes() for name in ("config.json", "model.safetensors")}
    server.files |= {"models/org/tiny-gpt2": {**files, "tokenizer.json": b"{}"}, "models/tiny": files}
    return network


@pytest.mark.parametrize("name", ["gpt2:org/tiny-gpt2", "gpt2:tiny", "gpt2:org/tiny-gpt2@main", f"gpt2:tiny@{COMMIT}"])
def test_a_backbone_comes_from_the_hub_with_its_commit(models, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "hub" if (tmp_path / "hub").exists() else "/")  # no folder of such a name there
    backbone = load_backbone(name)
    weights = (tmp_path / "tiny" / "model.safetensors").read_bytes()

    assert backbone.provenance.revision == COMMIT
    assert backbone.provenance.identity == name.partition(":")[2].partition("@")[0]
    assert backbone.provenance.weights_sha256 == hashlib.sha256(weights).hexdigest()
    expected = dict(models.named_parameters())
    for parameter_name, parameter in backbone.network.named_parameters():
        assert parameter.equal(expected[parameter_name])


def test_only_config_and_weights_of_a_model_are_fetched(models, server):
    load_backbone("gpt2:org/tiny-gpt2")

    assert not any("tokenizer.json" in asked for asked in server.asked)


def test_a_random_backbone_of_the_hub_s_size_fetches_no_weights(models, server):
    backbone = load_backbone("gpt2:org/tiny-gpt2", "random")

    assert (backbone.n_layers, backbone.d_model) == (2, 16)
    assert backbone.provenance.revision == COMMIT
    assert not any("safetensors" in asked for asked in server.asked)


def test_a_preset_comes_from_its_repository(models, server, monkeypatch):
    server.files["models/openai-community/gpt2"] = server.files["models/tiny"]

    with pytest.raises(SourceError, match=r"model.safetensors does not fit GPT2Model|cannot be read as GPT2Model"):
        load_backbone("gpt2")  # the fetched weights are a tiny network's
    assert (
        "GET /openai-community/gpt2/resolve/0123456789abcdef0123456789abcdef01234567/model.safetensors" in server.asked
    )


def test_a_preset_that_cannot_be_had_says_what_else_there_is(server):
    with pytest.raises(
        SourceError, match=r"no package carries weights of gpt2: .*no such repo.*gpt2:FOLDER.*init=random"
    ):
        load_backbone("gpt2")


def test_presets_that_are_drawn_at_random_or_come_in_packages_ask_nobody(server):
    load_backbone("gpt2-tiny-random", "random")
    load_backbone("minilm", "random", n_layers=1)

    assert server.asked == []


def test_a_run_is_loaded_at_the_commit_that_it_was_trained_on(models, server, tmp_path, offline):
    config = fpt.RunConfig.from_dict(
        {
            "task": {"name": "bit_xor", "options": {"n_bits": 2}},
            "backbone": {"name": "gpt2:org/tiny-gpt2"},
            "train": {"n_steps": 1, "batch_size": 2},
        }
    )
    record = fpt.run(config, out=tmp_path / "run")
    newer = {**server.files["models/org/tiny-gpt2"], "config.json": b"another"}
    server.files["models/org/tiny-gpt2"], server.commit = newer, "f" * 40

    model = fpt.load_model(record)

    assert record.ledger.backbone["revision"] == model.backbone.provenance.revision == COMMIT
    offline()
    fpt.load_model(record)
    assert server.asked == []


def test_a_folder_comes_before_the_hub(models, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backbone = load_backbone("gpt2:tiny")

    assert backbone.provenance.revision == ""
    assert server.asked == []


@pytest.mark.parametrize("place", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c"])
def test_a_path_that_is_no_folder_is_not_looked_for_on_the_hub(server, place):
    with pytest.raises(SourceError, match="no folder"):
        load_backbone(f"gpt2:{place}")
    assert server.asked == []


def test_another_architecture_on_the_hub_is_refused(models):
    with pytest.raises(ConfigError, match=r"holds a 'gpt2' model, wanted 'bert'"):
        load_backbone("bert:org/tiny-gpt2")


def test_a_revision_of_what_is_not_on_the_hub_is_refused():
    with pytest.raises(ConfigError, match=r"minilm does not come from the Hub, so it has no revision.*leave out @main"):
        load_backbone("minilm@main")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b"PK"}, r"no model.safetensors, but pytorch_model.bin; .*pickles"),
        (
            {"config.json": b"{}", "model-00001-of-00002.safetensors": b"{}"},
            r"no model.safetensors, but model-00001-of-00002.safetensors: load it with transformers",
        ),
        ({"README.md": b"hello"}, r"no config.json: choose a repository that holds a model"),
        ({"config.json": json.dumps([1]).encode(), "model.safetensors": b"x"}, r"config.json is not whole"),
    ],
)
def test_a_repository_without_whole_safetensors_weights_is_refused(server, files, message):
    server.files["models/org/odd"] = files

    with pytest.raises(SourceError, match=message):
        load_backbone("gpt2:org/odd")
