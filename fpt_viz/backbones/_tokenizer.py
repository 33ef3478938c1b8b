"""The tokenizer that a backbone was trained with: from a package, a folder or the Hub, as its weights are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fpt_viz import hub
from fpt_viz.backbones._loading import _quiet_transformers, _resolve
from fpt_viz.errors import ConfigError, SourceError

FILE = "tokenizer.json"


def load_tokenizer(name: str, *, revision: str = "") -> Any:
    """The tokenizer of the backbone ``name``, which neither cuts nor fills up what it is given.

    Args:
        name: As of :func:`load_backbone`. Read from ``tokenizer.json``; where the weights are a GGUF file, from it
            (4 to 10 s).
        revision: A commit of the Hub, in the place of what ``name`` says.

    Returns:
        A ``tokenizers.Tokenizer``.

    Raises:
        ConfigError: The backbone has none: it is an architecture without published weights.
        SourceError: The file is missing, altered or no tokenizer.
        UnknownNameError: No such preset or family.
    """
    path = _file(name, revision)
    try:
        tokenizer = _from_gguf(path) if path.suffix == ".gguf" else _from_json(path)
    except Exception as error:  # a damaged file fails in many ways inside tokenizers and transformers
        raise SourceError(f"{path} cannot be read as a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _file(name: str, revision: str) -> Path:
    """The file that the tokenizer of ``name`` is in."""
    found = _resolve(name)
    preset = found.preset
    if preset and preset.tokenizer:
        return preset.tokenizer.locate()
    if preset and preset.weights and preset.weights.path.endswith(".gguf"):
        return preset.weights.locate()
    if found.repo_id:
        files, commit = hub.data_files(found.repo_id, [FILE], revision=revision or found.revision or None, kind="model")
        if FILE not in files:
            raise SourceError(f"{found.repo_id} at {commit} has no {FILE}: choose a revision or a folder that has one")
        return files[FILE]
    if found.folder is None:
        raise ConfigError(
            f"{name} has no tokenizer, for it has no published weights: it never read any language; choose a backbone "
            "with weights, such as minilm"
        )
    if not (found.folder / FILE).is_file():
        raise SourceError(f"{found.folder} has no {FILE}: save it there with the tokenizer's save_pretrained(folder)")
    return found.folder / FILE


def _from_json(path: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_file=str(path)).backend_tokenizer


def _from_gguf(path: Path) -> Any:
    from transformers import AutoTokenizer

    with _quiet_transformers():
        found = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    return found.backend_tokenizer
