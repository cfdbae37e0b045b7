"""The one error of configuration. Everything that can be wrong with a setting ends as this."""

from __future__ import annotations

from mray.exceptions import RayError


class ConfigError(RayError, ValueError):
    """A setting that cannot be used. The message is one line a person can act on.

    ``name`` is what the user wrote (a variable, a key, a flag) or "" where a whole file is at
    fault; ``value`` what it was set to, None for a secret; ``expected`` what would be right;
    ``source`` where it was set ("environment variable X", "/path/mray.toml:3", "flag --x").
    """

    def __init__(
        self, message: str, *, name: str = "", value: object = None, expected: str = "",
        source: str = "",
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.name = name
        self.value = value
        self.expected = expected
        self.source = source
