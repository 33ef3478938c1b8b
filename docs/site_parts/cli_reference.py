"""The reference of the command line, from its own parser."""

from __future__ import annotations

import argparse

from fpt_viz.cli import parser

HEAD = """# Command line

Made from the program's own parser: `fpt-viz COMMAND --help` says the same. Errors are one line on stderr. The exit code
is 2 for what you must mend, 1 for a failure of the run, and with everything saved 130 after Ctrl-C, 143 after SIGTERM.
"""


def page() -> str:
    """The page as Markdown."""
    program, commands = parser._parsers()
    parts = [HEAD, "```text", program.format_usage().removeprefix("usage: ").strip(), "```", ""]
    told = {action.dest: action.help or "" for action in program._subparsers._group_actions[0]._choices_actions}
    parts += [
        "| command | |",
        "| --- | --- |",
        *(f"| [`{name}`](#fpt-viz-{name}) | {told[name]} |" for name in commands),
    ]
    for name, command in commands.items():
        parts += ["", f"(fpt-viz-{name})=", f"## fpt-viz {name}", "", command.description or "", ""]
        parts += ["```text", _usage(command), "```", "", *_table(command)]
    return "\n".join(parts) + "\n"


def _usage(command: argparse.ArgumentParser) -> str:
    return command.format_usage().removeprefix("usage: ").strip()


def _table(command: argparse.ArgumentParser) -> list[str]:
    rows = [f"| {_names(action)} | {_cell(action.help or '')} |" for action in command._actions]
    return ["| argument | |", "| --- | --- |", *rows]


def _names(action: argparse.Action) -> str:
    value = action.metavar if isinstance(action.metavar, str) else (action.dest.upper() if action.nargs != 0 else "")
    if isinstance(action.choices, tuple):
        value = "|".join(action.choices)
    if not action.option_strings:
        return _code(value)
    many = " ..." if action.nargs == "+" else ""
    return ", ".join(_code(f"{name} {value}{many}".strip()) for name in action.option_strings)


def _code(text: str) -> str:
    return f"`{_cell(text)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
