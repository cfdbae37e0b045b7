"""Writes configs/default.toml from the registry of settings; `--check` only compares.

Run `python scripts/render_config.py` to write the file. With `--check` it writes nothing, prints
the difference, and exits 1 if the file is out of date.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from mray.config.render import render_default_toml

TARGET = Path(__file__).resolve().parents[1] / "configs" / "default.toml"


def main(arguments: list[str], target: Path = TARGET) -> int:
    """Write or check ``target``. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Render configs/default.toml.")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args(arguments).check
    wanted = render_default_toml()
    present = target.read_text(encoding="utf-8") if target.exists() else ""
    if not check:
        target.write_text(wanted, encoding="utf-8")
        return 0
    sys.stdout.writelines(
        difflib.unified_diff(
            present.splitlines(keepends=True),
            wanted.splitlines(keepends=True),
            str(target),
            "as generated",
        )
    )
    return 0 if present == wanted else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
