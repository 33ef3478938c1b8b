"""Where weights come from: an installed package or a local folder, with the checksum that says what they are.

Nothing here touches the network, and no package that carries weights is imported: only its files are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from fpt_viz.errors import SourceError
from fpt_viz.records.store import sha256


@dataclass(frozen=True, kw_only=True)
class PackageFile:
    """A file inside an installed Python package."""

    package: str
    """Its name on PyPI."""
    path: str
    """Relative to site-packages."""
    sha256: str
    install: str
    """The command that installs the package."""

    def locate(self) -> Path:
        """The file, after its checksum was compared; reads it once (about 0.1 s for 90 MB).

        Raises:
            SourceError: The package or file is missing, or the file is another than the checksum says.
        """
        try:
            path = Path(str(distribution(self.package).locate_file(self.path)))
        except PackageNotFoundError:
            raise SourceError(
                f"package {self.package}, which carries the weights, is missing: {self.install}"
            ) from None
        if not path.is_file():
            raise SourceError(f"{path} is missing from package {self.package}: {self.install} --force-reinstall")
        found = sha256(path)
        if found != self.sha256:
            raise SourceError(
                f"{path} is not the published file: SHA-256 {found}, wanted {self.sha256}; "
                f"{self.install} --force-reinstall"
            )
        return path


def config_in(folder: Path) -> Path:
    """The ``config.json`` of a model's folder in the Hub's layout; an error where there is none."""
    if not folder.is_dir():
        raise SourceError(f"no folder {folder}: weights are read from a folder with config.json and model.safetensors")
    if not (folder / "config.json").is_file():
        raise SourceError(f"{folder} has no config.json: it is no model's folder in the Hub's layout")
    return folder / "config.json"


def weights_in(folder: Path) -> Path:
    """The weights file of a model's folder in the Hub's layout: ``config.json`` beside ``model.safetensors``.

    Raises:
        SourceError: There is no such folder, or it lacks one of the two. Files that hold pickles
            (``pytorch_model.bin``) are never read.
    """
    config_in(folder)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        why = f"; {pickled[0]} is a pickle, which can run code when read, and is refused" if pickled else ""
        raise SourceError(f"{folder} has no model.safetensors{why}. Save the model with save_pretrained(folder)")
    return weights
