"""The configuration of a command: what its flags, the environment and the files say."""

from __future__ import annotations

import os

from mray.cli.render import note
from mray.config import Resolved, load


def settings(config_file: str | None = None, **flags: object) -> Resolved:
    """Load it, ``flags`` by key name, None where not given. Raises ConfigError."""
    try:
        here = os.getcwd()  # So that messages name files by their whole path.
    except FileNotFoundError:
        here = "."
    return load(flags, os.environ, config_file=config_file, working_dir=here)


def print_warnings(resolved: Resolved) -> None:
    """Print what is odd about the settings, for commands that start something by them."""
    for warning in resolved.warnings:
        note(f"warning: {warning}")
