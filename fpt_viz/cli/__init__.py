"""``fpt-viz``: arguments in, calls out. What a command does is the library's; here it is only asked for and shown.

Nothing heavy is imported before the arguments are known, so ``fpt-viz --help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import os
import signal
import sys
import threading
from types import FrameType

from fpt_viz.cli.answer import Answer
from fpt_viz.cli.parser import parse
from fpt_viz.errors import FptVizError, RecordError, Terminated

TRACEBACK = "FPT_VIZ_TRACEBACK"
"""The environment variable that lets unexpected errors show where they come from."""
FAILED, INTERRUPTED, NOBODY_READS, TERMINATED = 1, 130, 141, 143
"""Exit codes: an unexpected error, Ctrl-C, a closed pipe and SIGTERM (what a shell reports of a program that it ended).
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in ``argv`` (None: this process's own) and return its exit code.

    Errors are one line on stderr: 2 for what the user must mend, 1 for a failure of the run, 130 after Ctrl-C, 143
    after SIGTERM.
    """
    try:
        with _sigterm_as_ctrl_c():
            return _run(sys.argv[1:] if argv is None else argv)
    except BrokenPipeError:
        _give_up_stdout()
        return NOBODY_READS
    except FptVizError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt as stop:
        code = TERMINATED if _is_sigterm(stop) else INTERRUPTED
        return _fail(str(stop) or "stopped; what was saved before is whole", code)
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        return _fail(f"unexpected {type(error).__name__}: {error} (set {TRACEBACK}=1 to see where)", FAILED)


def _run(argv: Sequence[str]) -> int:
    try:
        handler, arguments = parse(argv)
    except SystemExit as done:  # --help and --version have printed what was asked
        with _writing():
            return int(done.code or 0)
    as_json = getattr(arguments, "json", False)
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        answer: Answer = handler(arguments)
    with _writing():
        answer.print(as_json=as_json)
    return answer.exit_code


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Have SIGTERM, which a scheduler sends, end what the block does as Ctrl-C would: workers end, runs are saved.

    Further ones are ignored, so that they do not cut the saving off; SIGKILL and Ctrl-C still do.
    A program around this one that hears SIGTERM itself goes on hearing it.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _is_sigterm(stop: BaseException | None) -> bool:
    """Whether SIGTERM is what led to ``stop``, in whatever words it was told on the way."""
    while stop is not None:
        if isinstance(stop, Terminated):
            return True
        stop = stop.__cause__ or stop.__context__
    return False


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """See to it that what is printed in the block has reached its reader at the end.

    Raises:
        RecordError: It could not be written, to a full disk for example.
        BrokenPipeError: The reader has left.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _give_up_stdout()
        raise RecordError(f"the answer could not be written: {error.strerror or error}") from error


def _give_up_stdout() -> None:
    """Let the interpreter's own flush at exit, of what nobody takes, go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> int:
    print(f"fpt-viz: {' '.join(message.split())}", file=sys.stderr)
    return code
