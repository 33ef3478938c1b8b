"""What works on this machine, what does not, and the cure: nothing is changed, and nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
import os
from pathlib import Path
import platform
import re
import shutil
import sys
import tempfile
from typing import Any, Literal

from huggingface_hub.errors import OfflineModeIsEnabled
import torch

from fpt_viz import hub, registry
from fpt_viz.backbones import Preset, load_backbone, preset_names
from fpt_viz.capture import capture_attention
from fpt_viz.config import BackboneConfig
from fpt_viz.data_sets.places import VARIABLE, folders_of
from fpt_viz.errors import FptVizError, UnknownNameError
from fpt_viz.model import FrozenPretrainedTransformer
from fpt_viz.tap import inspecting
from fpt_viz.tasks import Task, load_task
from fpt_viz.tasks._splits import SPLITS

PYTHON = (3, 11)
NEEDED_BYTES = 1 << 30
"""Free disk space below which runs and their captures may not fit."""
TOLERANCE = 1e-6
"""Between a captured pattern and the eager kernel's."""
DEFAULT = BackboneConfig().name
ESSENTIAL = ("python", "packages", "attention tap", f"weights of {DEFAULT}")
DATA_OPTIONS: dict[str, dict[str, Any]] = {"listops": {"data": "lra", "max_tokens": 1999}}
"""Of tasks that read a data set only if asked to, the options that ask; as large as what is published."""
CPU_FLAGS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 bf16", "avx512f": "AVX-512", "avx2": "AVX2"}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Literal["ok", "degraded"]
    found: str
    lost: str = ""
    """What will not work."""
    cure: str = ""

    @property
    def essential(self) -> bool:
        """Whether the main job needs it."""
        return self.name in ESSENTIAL


def examined() -> list[Check]:
    """Every check, in the order in which one thing needs another; takes some seconds."""
    presets = preset_names()
    looks: list[tuple[str, Callable[[], Check]]] = [("python", _python), ("packages", _packages), ("device", _device)]
    tiny = [name for name, family in presets.items() if name.endswith("-random") and _has_attention(family)]
    looks += [("attention tap", partial(_tap, name)) for name in tiny]
    looks += [
        (f"weights of {name}", partial(_weights, name, preset))
        for name, family in presets.items()
        if (preset := registry.load("backbones", family).presets[name]).weights is not None
    ]
    looks += [
        ("fonts", _fonts),
        ("chromium", _browser),
        ("notebooks", _notebooks),
        ("disk", _disk),
        ("folder", _folder),
    ]
    return [_safely(name, look) for name, look in looks]


def check_data(name: str) -> list[Check]:
    """Whether the data set of the task ``name`` is on this machine, and is what it should be: every example is read.

    Files that were fetched from the Hub before are looked at too; nothing is fetched.

    Raises:
        UnknownNameError: No task of that name reads a data set.
    """
    known = [task for task in registry.names("tasks") if hasattr(registry.load("tasks", task), "source")]
    if name not in known:
        raise UnknownNameError("data set", name, known)
    task = load_task(name, **DATA_OPTIONS.get(name, {}))
    with hub.without_network():
        try:
            checks = [_data_files(name, task)]
        except FptVizError as error:
            told = " ".join(str(error).split()) if folders_of(name) and not _is_elsewhere(error) else "none"
            looked = ", ".join([*map(str, folders_of(name)), "what was fetched from the Hub before"])
            found = f"{told}; looked at: {looked}"
            return [_degraded(f"{name} files", found, lost="The task cannot use it.", cure=_where(task))]
        return [*checks, *(_safely(f"{name} {split}", partial(_data_split, name, task, split)) for split in SPLITS)]


def _is_elsewhere(error: BaseException | None) -> bool:
    """Whether ``error`` says no more than that files would have to be fetched."""
    return error is not None and (isinstance(error, OfflineModeIsEnabled) or _is_elsewhere(error.__cause__))


def _where(task: Task) -> str:
    """Where the real files of a task's data set are."""
    if where := getattr(task, "where", ""):
        return str(where)
    repo_id = task.image_set.repo_id  # type: ignore[attr-defined]  # the other tasks that read files are image sets
    return f"let it be fetched from the Hub ({repo_id}) by using it once, or put the files into {VARIABLE}/{task.name}"


def _data_files(name: str, task: Task) -> Check:
    """Which files there are, with the checksums that a run would record."""
    source: dict[str, Any] = task.source()  # type: ignore[attr-defined]  # only such tasks are looked at
    revision = f" at {source['revision']}" if source["revision"] else ""
    files = ", ".join(f"{file} {checksum[:12]}" for file, checksum in source["sha256"].items())
    return _ok(f"{name} files", f"{source['layout']}{revision}; SHA-256 begins with: {files}")


def _data_split(name: str, task: Task, split: str) -> Check:
    """How many examples a split holds, beside how many were published where that is known."""
    n_found, n_published = task.n_examples(split), getattr(task, "published", {}).get(split)
    n_dropped = task.n_dropped(split) if hasattr(task, "n_dropped") else 0
    found = f"{n_found:,} examples" + (f", {n_dropped:,} too long" if n_dropped else "")
    if n_published is None or (n_found or 0) + n_dropped <= n_published:
        beside = f" of {n_published:,} published" if n_published else ""
        return _ok(f"{name} {split}", found + beside)
    return _degraded(
        f"{name} {split}",
        f"{found}, more than the {n_published:,} that were published",
        lost="Results are comparable with nobody's.",
        cure=_where(task),
    )


def _safely(name: str, look: Callable[[], Check]) -> Check:
    """What ``look`` finds; where it fails, that."""
    try:
        return look()
    except Exception as error:  # whatever is wrong with a machine, the other checks are still worth having
        found = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return _degraded(name, found, lost="What needs it fails.", cure="mend what the error names")


def _ok(name: str, found: str) -> Check:
    return Check(name=name, status="ok", found=found)


def _degraded(name: str, found: str, *, lost: str, cure: str) -> Check:
    return Check(name=name, status="degraded", found=found, lost=lost, cure=cure)


def _python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] >= PYTHON:
        return _ok("python", found)
    wanted = ".".join(map(str, PYTHON))
    return _degraded(
        "python",
        found,
        lost=f"fpt_viz needs Python {wanted}.",
        cure=f"make PYTHON=/path/to/python{wanted} demo",
    )


def _packages() -> Check:
    """Whether each dependency is there, and not too old."""
    wrong, told = [], []
    for requirement in requires("fpt_viz") or []:
        match = re.fullmatch(r"([\w.-]+)>=([\d.]+)", requirement)  # an extra's has a marker, and is not needed
        if match is None:
            continue
        name, low = match.groups()
        try:
            found = version(name)
        except PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        if _release(found) < _release(low):
            wrong.append(f"{name} is {found}, wanted {low} or newer")
        if name in ("torch", "transformers", "numpy", "plotly", "matplotlib"):
            told.append(f"{name} {found}")
    if not wrong:
        return _ok("packages", f"fpt_viz {version('fpt_viz')}, {', '.join(told)}")
    return _degraded(
        "packages",
        "; ".join(wrong),
        lost="What needs these packages fails.",
        cure="rm -f .venv/.installed && make env, or pip install --upgrade fpt_viz",
    )


def _release(text: str) -> tuple[int, ...]:
    """``"2.13.0+cpu"`` as ``(2, 13, 0)``."""
    return tuple(int(number) for number in re.match(r"[\d.]*", text)[0].strip(".").split(".") if number)  # type: ignore[index]


def _device() -> Check:
    threads = torch.get_num_threads()
    if torch.cuda.is_available():
        bf16 = "with" if torch.cuda.is_bf16_supported() else "without"
        found = f"cuda, {torch.cuda.get_device_name()} {bf16} bf16; --device cpu has {threads} threads"
        return _ok("device", found)
    return _ok("device", f"cpu, {threads} threads, {_cpu_abilities()}; no CUDA")


def _cpu_abilities() -> str:
    """The instructions that matter for matrix products, from Linux's own list; elsewhere what torch uses."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text(encoding="utf-8").split()) if info.is_file() else set()
    known = [told for flag, told in CPU_FLAGS.items() if flag in flags]
    return ", ".join(known) or torch.backends.cpu.get_cpu_capability()


def _has_attention(family: str) -> bool:
    return bool(registry.load("backbones", family).has_attention)


def _tap(preset: str) -> Check:
    """Capture on a small random model against what ``transformers`` returns under its eager kernel.

    Where that is no pattern of whole rows (Longformer's band), the output with every pattern tapped against its own.
    """
    model = FrozenPretrainedTransformer(load_backbone(preset, "random"), load_task("bit_xor"))
    batch = model.task.distinct(4, "test")
    backbone = model.backbone
    captured = capture_attention(model, batch, queries=None).weights
    with inspecting(model):
        if backbone.reach is not None:
            own = model(batch.inputs)
            tapped, _ = model.run_with_cache(batch.inputs, names_filter=lambda name: name.endswith("hook_pattern"))
            difference = float((tapped - own).abs().max())
            found = f"{preset}: the output with every pattern tapped is its own within {difference:.1g}"
        else:
            vectors = model.input(batch.inputs)
            if hasattr(backbone, "added_positions"):
                vectors = vectors + backbone.added_positions
            backbone.network.set_attn_implementation("eager")
            expected = backbone.network(**{backbone.inputs_name: vectors}, output_attentions=True).attentions
            difference = float((captured - torch.stack(expected)).abs().max())
            found = f"{preset}: captured patterns are the eager kernel's within {difference:.1g}"
    if difference <= TOLERANCE:
        return _ok("attention tap", found)
    return _degraded(
        "attention tap",
        f"{found}, wanted {TOLERANCE:g}",
        lost=f"What is captured from backbones of this family is wrong with transformers {version('transformers')}.",
        cure="install the pinned release: pip install -c constraints.txt transformers",
    )


def _weights(preset: str, declared: Preset) -> Check:
    """Whether the weights of ``preset`` are there and are what was published; reads them once."""
    assert declared.weights is not None  # only such presets are looked at
    name, is_default = f"weights of {preset}", preset == DEFAULT
    try:
        path = declared.weights.locate()
    except FptVizError as error:
        return _degraded(
            name,
            str(error),
            lost=f"--backbone {preset} works with --init random only" + ("; so does the demo." if is_default else "."),
            cure=declared.weights.install,
        )
    size = f"{path.stat().st_size / 1e6:.0f} MB"
    return _ok(name, f"{declared.identity}, {size}, SHA-256 as published; {declared.licence}")


def _fonts() -> Check:
    """Whether matplotlib finds the letters of each preset of paper figures."""
    from matplotlib import font_manager

    from fpt_viz.export import PRESETS

    there = {entry.name for entry in font_manager.fontManager.ttflist}
    wanted = {preset.font_family for preset in PRESETS.values()}
    if wanted <= there:
        return _ok("fonts", f"{', '.join(sorted(wanted))} for paper figures")
    return _degraded(
        "fonts",
        f"{', '.join(sorted(wanted - there))} not found",
        lost="Paper figures come out in other letters.",
        cure="pip install --force-reinstall matplotlib, which brings them",
    )


def _browser() -> Check:
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is not None and Path(program).is_file():
        return _ok("chromium", str(program))
    return _degraded(
        "chromium",
        f"{program or 'none'}, which is no file" if program else "none",
        lost="Tests of pages and notebooks in a browser are skipped; figures and reports need none.",
        cure="apt-get install chromium fonts-liberation, or name a browser in the variable CHROMIUM",
    )


def _notebooks() -> Check:
    """Whether JupyterLab would show figures and widgets: the extension's files lie where it looks."""
    told = [f"{name} {version(name)}" for name in ("jupyterlab", "ipywidgets", "anywidget")]
    folders = [Path(sys.prefix) / "share/jupyter" / name for name in ("labextensions/anywidget", "kernels/python3")]
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if not missing:
        return _ok("notebooks", ", ".join(told))
    return _degraded(
        "notebooks",
        f"{', '.join(told)}, but no {' and no '.join(missing)}",
        lost="Widgets stay blank, or notebooks find no kernel.",
        cure="pip install --force-reinstall anywidget ipykernel",
    )


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free
    found = f"{free / 1e9:.1f} GB free in {Path.cwd()}"
    if free >= NEEDED_BYTES:
        return _ok("disk", found)
    return _degraded(
        "disk",
        found,
        lost="Runs and captured attention may not fit.",
        cure=f"free {NEEDED_BYTES / 1e9:.0f} GB, or give another disk with --out",
    )


def _folder() -> Check:
    folder = Path.cwd()
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return _degraded(
            "folder",
            f"{folder} cannot be written: {error.strerror or error}",
            lost="Runs that are given no --out, or one below this folder, cannot be saved.",
            cure="give --out a folder of yours",
        )
    return _ok("folder", f"{folder} can be written")
