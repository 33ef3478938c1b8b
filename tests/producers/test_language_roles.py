"""What heads did with words: read by the network as it came, through its own tokenizer, beside routing scores."""

from __future__ import annotations

from pathlib import Path
import shutil

import pytest
import torch
from transformers import BertModel, GPT2Config, GPT2Model

import fpt_viz as fpt
from fpt_viz.backbones import load_tokenizer
from fpt_viz.backbones.bert import Bert
from fpt_viz.errors import ConfigError, RecordError, SourceError
from fpt_viz.measures._language import Pieces, usual_text
from fpt_viz.records import LanguageRoles

SENTENCE = "The cat saw the dog, and the dog saw the cat. The cat ran; the dog ran. "


def model_of(
    name: str, init: str = "pretrained", task: str = "bit_xor", **options: int
) -> fpt.FrozenPretrainedTransformer:
    return fpt.FrozenPretrainedTransformer(fpt.load_backbone(name, init), fpt.load_task(task, **options))


@pytest.fixture(scope="module")
def minilm() -> fpt.FrozenPretrainedTransformer:
    """On 3 + 3 bits, untrained but for what is moved here: what training moves must not reach the roles."""
    model = model_of("minilm", n_bits=3)
    with torch.no_grad():
        for name, parameter in model.trained_tensors().items():
            if not name.startswith("output"):
                parameter.mul_(1.5)
    return model


@pytest.fixture(scope="module")
def found(minilm) -> LanguageRoles:
    return fpt.measures.language_roles(minilm, text=3 * SENTENCE, n_tokens=12, max_offset=4, n_examples=16)


@pytest.mark.slow
def test_roles_are_those_of_the_network_as_transformers_runs_it_on_the_words(found):
    """Positions, norms and embeddings of the published file, whatever the model's own have become."""
    tokenizer = load_tokenizer("minilm")
    words = tokenizer.encode(3 * SENTENCE, add_special_tokens=False).ids
    pieces = torch.tensor([[101, *words[i : i + 10], 102] for i in range(0, len(words) - 9, 10)])
    weights = Bert.presets["minilm"].weights
    assert weights is not None
    network = BertModel.from_pretrained(weights.locate().parent, attn_implementation="eager").eval()
    with torch.no_grad():
        patterns = torch.stack(network(pieces, output_attentions=True).attentions)  # [layer batch head query key]
    rows = torch.arange(2, 11)  # the first word comes after a special token
    assert found.n_pieces == len(pieces)
    previous = patterns[..., rows, rows - 1].mean((1, 3))
    torch.testing.assert_close(found.of("previous_token"), previous, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.of("sink"), patterns[..., 1:11, 0].mean((1, 3)), atol=1e-5, rtol=1e-4)
    back = patterns[..., rows[1:], rows[1:] - 3].mean((1, 3))
    torch.testing.assert_close(found.of("needed_offset"), back, atol=1e-5, rtol=1e-4)


def test_the_offset_that_the_task_needs_is_told_and_the_preferred_one_is_the_highest(found):
    assert found.needed_offset == -3
    best = found.by_offset.clone()
    best[found.offsets.index(0)] = -1
    torch.testing.assert_close(found.of("offset"), best.amax(0))
    assert found.offsets[int(best[:, 2, 5].argmax())] == int(found.preferred_offset[2, 5])


def test_a_head_of_minilm_reads_the_previous_word_and_none_does_with_random_weights(found):
    previous = found.roles.index("previous_token")
    assert float(found.score[previous].max()) > 0.9
    assert float(found.random[previous].max()) < 2 * float(found.uniform[previous])


def test_correlations_are_with_the_models_own_routing_scores(minilm, found):
    stats = fpt.head_statistics(minilm, n_examples=16, split="test")
    torch.testing.assert_close(found.routing_score, stats.routing_score, atol=1e-5, rtol=1e-4)
    i = found.roles.index("sink")
    again = fpt.analysis.rank_correlation(found.of("sink").flatten(), stats.routing_score.flatten())
    assert float(found.correlation[i]) == pytest.approx(again.value, abs=1e-6)
    assert float(found.p[i]) == pytest.approx(again.p)


def test_it_is_saved_and_loaded_whole(found, tmp_path):
    found.save(tmp_path / "roles.safetensors")
    again = LanguageRoles.load(tmp_path / "roles.safetensors")
    assert again.roles == found.roles
    assert again.needed_offset == -3
    assert again.to_pandas().equals(found.to_pandas())
    assert again.correlations().equals(found.correlations())
    assert list(found.to_pandas()["routing_score"]) == sorted(found.routing_score.flatten().tolist(), reverse=True)


def test_pieces_lie_between_special_tokens_and_know_punctuation():
    pieces = Pieces.of("Oh dear! Oh dear! I shall be late!", load_tokenizer("minilm"), 6)
    tokens = load_tokenizer("minilm").decode(pieces.tokens[0].tolist(), skip_special_tokens=False)
    assert tokens == "[CLS] oh dear! oh [SEP]"
    assert pieces.special.tolist() == [[True, False, False, False, False, True]] * 2
    assert pieces.punctuation.nonzero().tolist() == [[0, 3], [1, 2]]


def test_the_text_that_is_read_is_the_book_as_it_was_printed():
    text = usual_text()
    assert text.startswith("Alice was beginning to get very tired of sitting by her sister on the bank")
    assert text.rstrip().endswith("down she came upon a heap of sticks and dry leaves, and the fall was over.")
    assert text.isascii()


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory) -> Path:
    """A tiny GPT-2 with MiniLM's words, in the Hub's layout."""
    folder = tmp_path_factory.mktemp("gpt2")
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 8, "vocab_size": 30522, "n_positions": 64}
    GPT2Model(GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)).save_pretrained(folder)
    tokenizer = Bert.presets["minilm"].tokenizer
    assert tokenizer is not None
    shutil.copy(tokenizer.locate(), folder / "tokenizer.json")
    return folder


def test_a_causal_network_from_a_folder_has_induction(gpt2_folder):
    found = fpt.measures.language_roles(
        model_of(f"gpt2:{gpt2_folder}"), text=SENTENCE, n_tokens=12, max_offset=4, n_examples=8
    )
    assert "induction" in found.roles
    assert found.causal
    assert found.offsets == (-4, -3, -2, -1, 0)
    assert "needed_offset" not in found.roles  # 5 tokens back is farther than the offsets told of
    (gpt2_folder / "tokenizer.json").rename(gpt2_folder / "kept.json")
    with pytest.raises(SourceError, match=r"has no tokenizer\.json: save it there"):
        fpt.measures.language_roles(model_of(f"gpt2:{gpt2_folder}"), text=SENTENCE, n_tokens=12)


def test_a_task_without_needs_gets_roles_and_no_correlation(minilm):
    found = fpt.measures.language_roles(
        model_of("minilm", task="digits"), text=SENTENCE, n_tokens=12, max_offset=4, n_examples=8
    )
    assert found.routing_score is None
    assert found.needed_offset is None
    assert "routing_score" not in found.to_pandas()
    with pytest.raises(RecordError, match="digits does not say what a query needs"):
        found.correlations()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bert-tiny-random", "has no tokenizer, for it has no published weights"),
        ("vit-tiny-random", "has no tokenizer"),
    ],
)
def test_a_network_that_never_read_language_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        fpt.measures.language_roles(model_of(name, "random"))


def test_a_text_shorter_than_a_piece_is_refused(minilm):
    with pytest.raises(ConfigError, match="a text of 3 tokens makes no piece of 64"):
        fpt.measures.language_roles(minilm, text="Oh dear!")


def test_another_network_than_the_models_is_refused():
    model = model_of("minilm", "random")
    with pytest.raises(ConfigError, match="random, seed 7.* is not what this model was built from"):
        fpt.measures.language_roles(model, text=SENTENCE, n_tokens=12, max_offset=4, network_seed=7)
