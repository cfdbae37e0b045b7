"""The version of mray, and the version of Ray whose behaviour it has."""

from __future__ import annotations

from typing import Final

#: As in pyproject.toml; a test holds the two together.
VERSION: Final = "0.1.0"
#: What scripts that compare ``ray.__version__`` are told to expect.
RAY_VERSION: Final = "2.60.0"
