#!/usr/bin/env python3
"""Lay the sources out as the package `mray`, for tools that read files and run no import hook.

The folders core, cli and node are installed under one name, which a type checker cannot know.
This makes build/tree/mray/ with a link to everything in core, and to cli and node, and prints the
path to give to such a tool: MYPYPATH="$(scripts/link_tree.py)" mypy -p mray
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def wanted_links(root: Path) -> dict[str, Path]:
    """Name in the package -> the file or folder it stands for."""
    links = {entry.name: entry for entry in sorted((root / "core").iterdir())}
    for folder in ("cli", "node"):
        if folder in links:
            raise SystemExit(f"core/{folder} would hide {folder}/: rename it")
        links[folder] = root / folder
    links.pop("__pycache__", None)
    return links


def make_tree(root: Path) -> Path:
    """Make or update the tree; return the folder that contains the package."""
    tree = root / "build" / "tree"
    package = tree / "mray"
    package.mkdir(parents=True, exist_ok=True)
    links = wanted_links(root)
    for entry in package.iterdir():
        if not entry.is_symlink():
            raise SystemExit(f"{entry} is not a link: delete build/tree and try again")
        if entry.name not in links or entry.readlink() != links[entry.name]:
            entry.unlink()
    for name, target in links.items():
        link = package / name
        if not link.is_symlink():
            link.symlink_to(target)
    return tree


if __name__ == "__main__":
    print(make_tree(ROOT))
    sys.exit(0)
