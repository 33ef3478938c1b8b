"""What is asked of a model: one task a file, a frozen dataclass whose fields are its options."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from fpt_viz import registry
from fpt_viz.errors import ConfigError, UnknownNameError
from fpt_viz.tasks.base import Batch, Corrupted, Task

__all__ = ["Batch", "Corrupted", "Task", "load_task"]


def load_task(name: str, **options: Any) -> Task:
    """The task of that name, with ``options``; those not given have their defaults.

    Args:
        name: An entry of ``fpt_viz/tasks``, or the path of a ``.py`` file whose one public name is a :class:`Task`
            (its code runs: give only files that you trust).
        options: Fields of the task.

    Raises:
        UnknownNameError: There is no such task, or it has no such option.
        ConfigError: An option's type or value cannot be used.
    """
    task = registry.load("tasks", name)
    if not (isinstance(task, type) and issubclass(task, Task)):
        found = getattr(task, "__name__", task)
        raise ConfigError(f"{name}: its public name {found!r} is no subclass of fpt_viz.tasks.Task")
    if forgotten := sorted(getattr(task, "__abstractmethods__", ())):
        raise ConfigError(f"{name}: {task.__name__} does not define {', '.join(forgotten)}: see fpt_viz.tasks.Task")
    known = {field.name: field for field in fields(task) if field.init}
    for option in options:
        if option not in known:
            raise UnknownNameError(f"option of {name}", option, known)
    needed = [f.name for f in known.values() if f.default is MISSING and f.default_factory is MISSING]
    missing = [option for option in needed if option not in options]
    if missing:
        raise ConfigError(f"{name} needs the option {', '.join(missing)}, which has no default")
    return task(**task.checked(options))
