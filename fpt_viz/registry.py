"""The folders are the registries: a file's name is its name in configs, run ids and menus.

Adding an entry is adding one file whose ``__all__`` holds its one public name; nothing else is edited. A path to a
``.py`` file of the same form serves too, so that a user's own task needs no fork. :func:`publish` and
:func:`namespace` make public names attributes of a package without importing what lies behind them.
"""

from __future__ import annotations

from collections.abc import Callable
import hashlib
from importlib import import_module
import importlib.util
from pathlib import Path
import sys
from types import ModuleType
from typing import Any

from fpt_viz.errors import ConfigError, UnknownNameError

PACKAGE = Path(__file__).parent
SINGULAR = {
    "tasks": "task",
    "backbones": "backbone family",
    "analysis": "analysis",
    "measures": "measure",
    "figures": "figure",
    "experiments": "experiment",
}
_RAN: dict[Path, str] = {}
"""The SHA-256 of each file that was loaded."""


def names(folder: str) -> list[str]:
    """The entries of ``fpt_viz/<folder>``, sorted; imports none of them."""
    stems = (path.stem for path in (PACKAGE / folder).glob("*.py"))
    return sorted(stem for stem in stems if stem != "base" and not stem.startswith("_"))


def load(folder: str, name: str) -> Any:
    """The one public object of ``fpt_viz/<folder>/<name>.py``, or of the file that ``name`` is the path of.

    A path (anything that ends in ``.py``) runs that file's code: give only files that you trust.
    """
    if name.endswith(".py"):
        module = _module_at(Path(name))
    elif name in names(folder):
        module = import_module(f"fpt_viz.{folder}.{name}")
    else:
        raise UnknownNameError(SINGULAR.get(folder, folder), name, names(folder))
    public = getattr(module, "__all__", [])
    if len(public) != 1:
        raise ConfigError(f"{name}: __all__ must hold the one public name of the file, it holds {list(public)}")
    return getattr(module, public[0])


def file_sha256(name: str) -> str | None:
    """The SHA-256 of the file at ``name`` where that is a path to one, else None (an entry of the package)."""
    return hashlib.sha256(Path(name).read_bytes()).hexdigest() if name.endswith(".py") else None


def ran_sha256(name: str) -> str | None:
    """The SHA-256 of what the file at ``name`` held when it was last loaded here, which it need not hold any more.

    None for an entry of the package.
    """
    return _RAN[Path(name).resolve()] if name.endswith(".py") else None


def _module_at(path: Path) -> Any:
    """The module in the file at ``path``, loaded once for each content of the file.

    What runs is the text that was read here, never a ``__pycache__``: Python tells its age by whole seconds, so it may
    hold an older text, or one of another's.
    """
    if not path.is_file():
        raise ConfigError(f"no file {path}: a name that ends in .py is the path of a file with one public name")
    text = path.read_bytes()
    _RAN[path.resolve()] = hashlib.sha256(text).hexdigest()
    key = f"fpt_viz_user_{hashlib.sha256(str(path.resolve()).encode() + text).hexdigest()[:16]}"
    if key in sys.modules:
        return sys.modules[key]
    spec = importlib.util.spec_from_file_location(key, path)
    assert spec is not None  # a .py suffix always has a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[key] = module
    try:
        code = compile(text, str(path), "exec", dont_inherit=True)
        exec(code, module.__dict__)  # noqa: S102 (the user named the file, and this is what it holds)
    except Exception as error:
        del sys.modules[key]
        raise ConfigError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    return module


class _PublishedPackage(ModuleType):
    """A package whose public objects are found when first asked for, and which no submodule hides.

    Importing a submodule binds it as an attribute of its package. Where a public object has the file's name
    (``fpt_viz.train``, ``fpt_viz.figures.head_grid``), the object stays; the submodule remains in ``sys.modules``, so
    ``from fpt_viz.train import run`` works as ever.
    """

    _public_names: Callable[[], list[str]]
    _find: Callable[[str], Any]

    def __getattr__(self, name: str) -> Any:
        if name not in self._public_names():
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        found = self.__dict__[name] = self._find(name)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        is_submodule = isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}"
        if not (is_submodule and name in self._public_names()):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return self._public_names()


def publish(package: str, public_names: Callable[[], list[str]], find: Callable[[str], Any]) -> None:
    """Let the imported ``package`` offer ``public_names()``, each looked up by ``find`` when it is first asked for."""
    module = sys.modules[package]
    vars(module).update(_public_names=public_names, _find=find)
    module.__class__ = _PublishedPackage


def namespace(folder: str) -> None:
    """Make every entry of ``fpt_viz/<folder>`` an attribute of that package: ``fpt_viz.figures.head_grid``."""
    publish(f"fpt_viz.{folder}", lambda: names(folder), lambda name: load(folder, name))
