"""Run benchmarks by name, all of them unless some are given: ``python -m benchmarks startup training``."""

from __future__ import annotations

from importlib import import_module
import os
from pathlib import Path
import platform
import sys

import torch

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


def main() -> int:
    """Print what was measured, one block a benchmark."""
    asked = sys.argv[1:] or NAMES
    unknown = sorted(set(asked) - set(NAMES))
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    machine = f"{platform.platform()}, {os.cpu_count()} cores"
    print(f"{machine}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in asked:
        module = import_module(f"benchmarks.{name}")
        print(f"\n## {name}: {module.__doc__.splitlines()[0]}")
        for line in module.measure():
            print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
