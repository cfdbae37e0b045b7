"""mray's settings: one typed registry, one loader, one precedence.

Start at sections.py (the settings), then load.py (precedence). registry.py is the table made of
the sections, sources.py and values.py read what people wrote, ray_names.py knows the variables
that are no settings, render.py prints configs/default.toml.

Nothing here reads os.environ: `load(flags, os.environ)` is the entry for a process that starts on
its own, `Config.from_bytes` and `load_secrets(os.environ)` for one that is sent its configuration.
"""

from mray.config.errors import ConfigError
from mray.config.key import Scope
from mray.config.load import (
    Resolved,
    Setting,
    adopt,
    conflicts,
    keep_environment,
    keep_own,
    load,
    load_secrets,
)
from mray.config.registry import KEYS, KeyInfo, describe
from mray.config.sections import Config, Secrets
from mray.config.sources import Source
from mray.config.store_sections import OBJECT_STORE_MEMORY_MIN_BYTES

__all__ = [
    "KEYS",
    "OBJECT_STORE_MEMORY_MIN_BYTES",
    "Config",
    "ConfigError",
    "KeyInfo",
    "Resolved",
    "Scope",
    "Secrets",
    "Setting",
    "Source",
    "adopt",
    "conflicts",
    "describe",
    "keep_environment",
    "keep_own",
    "load",
    "load_secrets",
]
