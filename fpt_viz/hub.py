"""Files from the Hugging Face Hub, or another server that ``HF_ENDPOINT`` names: at one commit, and checked.

``huggingface_hub`` fetches: it resumes, writes atomically, keeps one cache for all programs, and shows progress on a
terminal only. Added here: a revision is resolved to a commit once, every file is compared with the checksum that the
Hub itself states for it, nothing that can hold a pickle is fetched, a cache that holds what is asked for is used
without the network, and whatever goes wrong is one :class:`SourceError` that names repository, file and cure. The
network is touched only when a function here is called.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
import contextlib
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
import hashlib
import logging
import os
from pathlib import Path
import re
from typing import Literal, NoReturn

import huggingface_hub
from huggingface_hub import constants, errors
import platformdirs

from fpt_viz.errors import RecordError, SourceError
from fpt_viz.records.store import read_json, sha256, write_json

SUFFIXES = (".safetensors", ".json", ".parquet", ".csv")
"""Of files that may be fetched: none of these formats can run code when it is read."""
MODEL_FILES = ("config.json", "model.safetensors")
COMMIT = re.compile(r"[0-9a-f]{40}")
TIMEOUT = 20.0
"""Seconds to wait for the Hub to say which commit a revision is."""
BUSY = (429, 500, 502, 503, 504)
"""Answers of a server that may do better later; a cached copy then serves."""

Kind = Literal["dataset", "model"]
logger = logging.getLogger("fpt_viz")


def data_files(
    repo_id: str, patterns: Collection[str], *, revision: str | None = None, kind: Kind = "dataset"
) -> tuple[dict[str, Path], str]:
    """The files of a repository whose names match one of ``patterns``, fetched where they are not cached.

    Args:
        repo_id: Such as ``"uoft-cs/cifar10"``.
        patterns: Globs over names in the repository, such as ``"plain_text/train-*.parquet"``.
        revision: A branch, tag or commit; None is the main branch. A full commit that is cached needs no network.
        kind: Of the repository.

    Returns:
        Name in the repository -> path, sorted by name; and the commit that they are of.

    Raises:
        SourceError: The files are not cached and cannot be fetched, or are not what the Hub says they are.
    """
    repo = _Repository(repo_id, kind)
    listing = repo.listing(revision)
    chosen = sorted(name for name in listing.files if any(fnmatchcase(name, pattern) for pattern in patterns))
    if not chosen:
        there = ", ".join(sorted(listing.files)[:8]) or "no files"
        raise SourceError(f"{repo.told(listing.commit)} has no {' or '.join(patterns)}; it has {there}")
    return {name: repo.file(listing, name) for name in chosen}, listing.commit


def model_folder(repo_id: str, *, revision: str | None = None) -> tuple[Path, str]:
    """A folder with ``config.json`` and ``model.safetensors`` of a model, and the commit that they are of.

    Args:
        repo_id: Such as ``"openai-community/gpt2"``.
        revision: As of :func:`data_files`.

    Raises:
        SourceError: As of :func:`data_files`; or the model is published as pickles or in several parts only.
    """
    repo = _Repository(repo_id, "model")
    listing = repo.listing(revision)
    for name in MODEL_FILES:
        if name not in listing.files:
            raise SourceError(f"{repo.told(listing.commit)} has no {name}{_instead(listing.files)}")
    paths = [repo.file(listing, name) for name in MODEL_FILES]
    return paths[0].parent, listing.commit


def _instead(names: Collection[str]) -> str:
    """What a repository without whole safetensors weights has in their place, and the cure."""
    pickles = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")))
    parts = sorted(name for name in names if name.endswith(".safetensors"))
    if parts:
        return f", but {parts[0]}: load it with transformers, and save_pretrained(folder, max_shard_size='100GB')"
    if pickles:
        return (
            f", but {pickles[0]}; files that can hold pickles, which can run code when read, are refused: "
            "choose a revision or a copy with safetensors"
        )
    return ": choose a repository that holds a model"


@dataclass(frozen=True)
class _Stated:
    """What the Hub says of a file; None where it says nothing."""

    size: int | None = None
    sha256: str | None = None
    """Of large files."""
    git_sha1: str | None = None
    """Of the others: the name of the object in git."""


@dataclass(frozen=True)
class _Listing:
    """The files of a repository at one commit."""

    commit: str
    files: Mapping[str, _Stated]


@dataclass(frozen=True)
class _Repository:
    """One repository on the Hub."""

    repo_id: str
    kind: Kind

    def told(self, revision: str | None, name: str = "") -> str:
        """How the repository, or one of its files, is called in messages."""
        file = f"{name} of " if name else ""
        at = f" at {revision}" if revision else ""
        return f"{file}{self.kind} {self.repo_id}{at} on {_endpoint()}"

    def listing(self, revision: str | None) -> _Listing:
        """The files at ``revision``: of a commit as listed before, else as the Hub says, else as last cached."""
        commit = revision if revision and COMMIT.fullmatch(revision) else None
        if (kept := self._kept(commit)) is not None:
            return kept
        error: Exception = errors.OfflineModeIsEnabled()
        if not constants.HF_HUB_OFFLINE:
            try:
                return self._asked(revision)
            except Exception as failure:  # huggingface_hub and the HTTP client below it fail in many ways
                error = failure
        last = (commit or self._last_commit(revision)) if _may_pass(error) else None
        cached = self._kept(last) or self._of_other_programs(last)
        if cached is None:
            self._refuse(revision, error)
        if not constants.HF_HUB_OFFLINE:
            why = type(error).__name__
            logger.warning("%s cannot be asked (%s): commit %s is cached", self.told(revision), why, cached.commit)
        return cached

    def _asked(self, revision: str | None) -> _Listing:
        """The files at ``revision`` as the Hub lists them; kept for the time without it."""
        api = huggingface_hub.HfApi(endpoint=_endpoint())
        ask = api.dataset_info if self.kind == "dataset" else api.model_info
        info = ask(self.repo_id, revision=revision, files_metadata=True, timeout=TIMEOUT)
        files = {
            sibling.rfilename: _Stated(
                size=sibling.size,
                sha256=sibling.lfs.sha256 if sibling.lfs else None,
                git_sha1=None if sibling.lfs else sibling.blob_id,
            )
            for sibling in info.siblings or []
        }
        if info.sha is None or not COMMIT.fullmatch(info.sha):
            raise SourceError(f"{self.told(revision)}: wanted a commit, got {info.sha!r}; check HF_ENDPOINT")
        listing = _Listing(info.sha, files)
        with contextlib.suppress(RecordError):  # a cache that cannot be written: the files can still be used now
            write_json(self._list_path(info.sha), {name: asdict(stated) for name, stated in files.items()})
            write_json(self._list_path(_as_file_name(revision)), info.sha)
        return listing

    def file(self, listing: _Listing, name: str) -> Path:
        """The file ``name``, fetched where it is not cached, after it was compared with what the Hub says of it."""
        if not name.endswith(SUFFIXES):
            raise SourceError(
                f"{self.told(listing.commit, name)} is refused: only {', '.join(SUFFIXES)} are read, since other files "
                "may hold pickles, which can run code when read"
            )
        try:
            path = Path(
                huggingface_hub.hf_hub_download(
                    self.repo_id, name, repo_type=self.kind, revision=listing.commit, endpoint=_endpoint(),
                    cache_dir=constants.HF_HUB_CACHE,
                )
            )  # fmt: skip
            wrong = _difference(path, listing.files[name])
        except Exception as error:  # as in listing
            self._refuse(listing.commit, error, name)
        if wrong:
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise SourceError(
                f"{self.told(listing.commit, name)} is not the published file: {wrong}. It was removed from the cache; "
                "try again, and if it happens again, another network or HF_ENDPOINT"
            )
        return path

    def _kept(self, commit: str | None) -> _Listing | None:
        """The files at ``commit`` as the Hub listed them before; None where it was not asked."""
        if commit is None:
            return None
        try:
            found = read_json(self._list_path(commit))
            return _Listing(commit, {name: _Stated(**stated) for name, stated in found.items()})
        except (RecordError, TypeError, AttributeError):
            return None

    def _of_other_programs(self, commit: str | None) -> _Listing | None:
        """The files at ``commit`` that another program has cached; None where none did."""
        folder = self._cache / "snapshots" / (commit or "")
        if commit is None or not folder.is_dir():
            return None
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return _Listing(commit, {path.relative_to(folder).as_posix(): _by_blob(path) for path in paths})

    def _last_commit(self, revision: str | None) -> str | None:
        """The commit that ``revision`` was when it was last asked for, by this package or another program."""
        with contextlib.suppress(RecordError):
            return str(read_json(self._list_path(_as_file_name(revision))))
        with contextlib.suppress(OSError):
            return (self._cache / "refs" / (revision or constants.DEFAULT_REVISION)).read_text().strip()
        return None

    @property
    def _cache(self) -> Path:
        """The folder of the repository in the cache of ``huggingface_hub``."""
        return Path(constants.HF_HUB_CACHE) / f"{self.kind}s--{self.repo_id.replace('/', '--')}"

    def _list_path(self, name: str) -> Path:
        folder = platformdirs.user_cache_path("fpt_viz") / "hub" / f"{self.kind}s--{_as_file_name(self.repo_id)}"
        return folder / f"{name}.json"

    def _refuse(self, revision: str | None, error: Exception, name: str = "") -> NoReturn:
        """Raise what ``error`` means for the one who asked."""
        if isinstance(error, SourceError):
            raise error
        why, cure = _meaning(error)
        raise SourceError(f"{self.told(revision, name)} cannot be had: {why}. {cure}") from error


@contextlib.contextmanager
def without_network() -> Iterator[None]:
    """Within the block only what is cached is found, as under ``HF_HUB_OFFLINE``; for looking around."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _endpoint() -> str:
    """The server: what ``HF_ENDPOINT`` names, as it is now."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def _as_file_name(text: str | None) -> str:
    """A file name for a revision or repository; other than any commit's."""
    return "ref-" + re.sub(r"[^\w.-]", "--", text or constants.DEFAULT_REVISION)


def _by_blob(path: Path) -> _Stated:
    """What the name of a cached file's blob says: ``huggingface_hub`` names it by the checksum that the Hub states."""
    blob = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", blob):
        return _Stated(sha256=blob)
    return _Stated(git_sha1=blob if COMMIT.fullmatch(blob) else None)


def _difference(path: Path, stated: _Stated) -> str:
    """How the file at ``path`` differs from what is stated; empty where it does not."""
    size = path.stat().st_size
    if stated.size is not None and size != stated.size:
        return f"{size:,} bytes, wanted {stated.size:,}"
    if stated.sha256 is not None and (found := sha256(path)) != stated.sha256:
        return f"SHA-256 {found}, wanted {stated.sha256}"
    if stated.git_sha1 is not None and (found := _git_sha1(path, size)) != stated.git_sha1:
        return f"git object {found}, wanted {stated.git_sha1}"
    return ""


def _git_sha1(path: Path, size: int) -> str:
    """The name that git gives to the content of a file."""
    digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _status(error: BaseException) -> int | None:
    """The HTTP status of an error or of what caused it; None where there is none."""
    for each in (error, error.__cause__):
        status = getattr(getattr(each, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _may_pass(error: Exception) -> bool:
    """Whether the server is out of reach or busy, rather than sure of its answer."""
    status = _status(error)
    known = (errors.HfHubHTTPError, errors.HFValidationError, SourceError)
    return status in BUSY if status is not None else not isinstance(error, known)


def _meaning(error: Exception) -> tuple[str, str]:
    """Why something cannot be had, and the cure."""
    again = "Try again: what has been fetched is kept, and the rest is fetched"
    status = _status(error)
    first_line = (str(error).splitlines() or [""])[0]
    causes = (error, error.__cause__)
    if isinstance(error, errors.HFValidationError):
        return "this is no name of a repository", "Names are NAME or ORGANISATION/NAME"
    if isinstance(error, errors.GatedRepoError):
        return "it is given only to those who accepted its terms", "Accept them on its page, and set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return "there is no such revision", "Choose a branch, tag or commit that its page lists"
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return "there is no such repository, or it is private", "Mend its name, or set HF_TOKEN"
    if status == 429:
        return "the server has had too many requests (429)", "Wait some minutes, or set HF_TOKEN"
    if status == 404:
        return "the server does not have it (404)", "Mend the name, or choose another revision"
    if status is not None:
        return f"the server answered {status}", "Try again later, or name another server in HF_ENDPOINT"
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes):
        return "it is not in the cache and HF_HUB_OFFLINE is set", "Unset HF_HUB_OFFLINE once, where there is a network"
    if "Consistency check failed" in first_line:
        return f"it was cut off ({first_line.partition('failed: ')[2]})", again
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return f"{error.filename}: {error.strerror}", "Free or name a folder for the cache (HF_HOME)"
    cause = error.__cause__ or error
    told = (str(cause).splitlines() or [""])[0]
    return f"the connection failed ({type(cause).__name__}: {told})", f"{again}; check the network and HF_ENDPOINT"
