"""Every error that the library raises on purpose.

All but :class:`Terminated` derive from :class:`FptVizError`, so that a notebook can catch them in one line and the
command line can turn each into one line on stderr. A message says what happened, to which object, what was wanted and
got, and the cure.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class FptVizError(Exception):
    """Something that the user can understand and mend; the base of all errors below."""

    exit_code = 2
    """Of the command line: 2 for what the user must mend, 1 for a failure of the run."""


class UnknownNameError(FptVizError):
    """A name that no entry, option, preset or parameter group has."""

    def __init__(self, what: str, name: str, known: Iterable[str], *, listed: Iterable[str] = ()) -> None:
        """``what`` is the kind of thing named (``"task"``); ``known`` are the names there are.

        ``listed`` tells them where they are too many to tell one by one.
        """
        known = sorted(known)
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"no {what} {name!r}.{hint} There are: {', '.join(listed or known) or 'none'}")


class ConfigError(FptVizError):
    """An option whose value or type cannot be used."""


class SourceError(FptVizError):
    """Weights or data that are missing, or are not what their checksum says."""


class FreezeError(FptVizError):
    """A parameter that is in no group, or in more than one."""


class CaptureError(FptVizError):
    """A tap that read nothing, read something that is no attention, or would need too much memory."""


class RecordError(FptVizError):
    """A saved file that is missing, truncated, altered, or of another kind than asked for."""


class RunFolderError(FptVizError):
    """A run folder that is taken: it holds a run already, or another process writes to it."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came. What Ctrl-C does is done, and the command line ends with an exit code of its own."""


class TrainingError(FptVizError):
    """A run that cannot go on: a loss or gradient that is not finite."""

    exit_code = 1


class TrapWarning(UserWarning):
    """What was done is allowed, and easily misread; the message says how to avoid it."""
