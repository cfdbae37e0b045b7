"""The environment of a worker or job: what its runtime_env says, and whether it must act early.

Covers: reading ``env_vars``, laying them over an environment, and telling which variables libraries
and the interpreter read only when they start. Does not change os.environ: whoever starts or is the
process does. The other fields are node/environments'.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

#: The node a process belongs to, and the worker or job it descends from: how leftovers are found.
NODE_VARIABLE: Final = "MRAY_NODE_ID"
MAKER_VARIABLE: Final = "MRAY_PROCESS_ID"
#: Says that nobody but the node has set OMP_NUM_THREADS. See runtime/accelerators.py.
THREADS_VARIABLE: Final = "MRAY_THREADS_ARE_OURS"
_MAKER_MARK: Final = f"{MAKER_VARIABLE}=".encode()
#: Read by the loader, the interpreter, malloc or a numerical library when it is loaded: too late
#: for a worker that was forked with all of these in it.
_EARLY_PREFIXES: Final = (
    "LD_", "OMP_", "MKL_", "OPENBLAS_", "GOTO_", "BLIS_", "KMP_", "NUMEXPR_", "VECLIB_", "PYTHON",
    "MALLOC_", "GLIBC_", "NPY_",
)  # fmt: skip
_REFERENCE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)


def maker_named(environ: bytes) -> str:
    """The worker or job that the bytes of a /proc/<pid>/environ name as maker; "" for none."""
    for entry in environ.split(b"\0"):
        if entry.startswith(_MAKER_MARK):
            return entry[len(_MAKER_MARK) :].decode("ascii", "replace")
    return ""


class RuntimeEnv(msgspec.Struct, frozen=True):
    """What the node daemon reads of a runtime_env; the rest is for the worker."""

    env_vars: dict[str, str] = {}

    @classmethod
    def read(cls, data: bytes) -> RuntimeEnv:
        """From msgpack; b"" is the empty one. ValueError where it is not a runtime_env."""
        if not data:
            return cls()
        try:
            return msgspec.msgpack.decode(data, type=cls)
        except msgspec.DecodeError as error:
            raise ValueError(f"this is no runtime_env: {error}") from error

    def over(self, environ: Mapping[str, str]) -> dict[str, str]:
        """``environ`` with env_vars laid over it, by name; ``$NAME`` and ``${NAME}`` in a value
        stand for what there was before."""
        merged = dict(environ)
        for name, value in sorted(self.env_vars.items()):
            merged[name] = _expanded(value, merged)
        return merged

    @property
    def acts_early(self) -> bool:
        """Whether a forked worker could not obey it."""
        return any(name.startswith(_EARLY_PREFIXES) for name in self.env_vars)


def _expanded(value: str, environ: Mapping[str, str]) -> str:
    """As in Ray: ``${NAME}`` that is not set is empty, ``$NAME`` that is not set means itself."""

    def former(found: re.Match[str]) -> str:
        return environ.get(found[1] or found[2], "" if found[1] else found[0])

    return _REFERENCE.sub(former, value)
