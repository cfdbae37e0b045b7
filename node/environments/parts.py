"""The parts a runtime environment is made of, and where workers find them.

Covers: reading an environment, the name of each part (equal names are one directory), and the
places that a worker is told. Makes nothing (builder.py) and keeps nothing (cache.py).
"""

from __future__ import annotations

import hashlib
import os
import shlex
from typing import Any, Final, Literal

import msgspec

from mray.packages import SCHEME, file_of
from mray.runtime.params import Places
from mray.runtime_env import SETUP_TIMEOUT_S

Kind = Literal["package", "wheel", "hook", "pip", "python"]
_NO_LIMIT: Final = -1
#: Where a builder writes how many bytes it has made.
RESULT_FD: Final = 3


class Part(msgspec.Struct, frozen=True):
    """One thing to be made. ``name`` is its directory's; equal names are the same part."""

    kind: Kind
    name: str
    #: The file to be fetched from the head; "" for none.
    package: str = ""
    #: Of pip: the checked field as JSON. Of python: the command.
    detail: str = ""

    def describe(self) -> str:
        """For people: what setting it up means."""
        if self.kind == "pip":
            packages = msgspec.json.decode(self.detail)["packages"]
            shown = ", ".join(packages[:5]) + (", ..." if len(packages) > 5 else "")
            return f"pip installs {shown}"
        if self.kind == "python":
            return f"py_executable {self.detail!r} is tried"
        if self.kind == "wheel":
            return f"the wheel {self.package.partition('.')[2]} is installed"
        return f"{SCHEME}{self.package} is fetched and unpacked"


class Order(msgspec.Struct, frozen=True):
    """What is to be made."""

    kind: Kind | str
    #: The directory, or of hooks the file.
    target: str
    #: The fetched file, "" for none; it is removed.
    package: str = ""
    detail: str = ""


class Plan(msgspec.Struct, frozen=True):
    """What an environment is made of."""

    working_dir: Part | None = None
    #: A directory of this machine, used in place.
    local_dir: str = ""
    modules: tuple[Part, ...] = ()
    pip: Part | None = None
    python: Part | None = None
    hook: Part | None = None
    timeout_s: float | None = SETUP_TIMEOUT_S

    @property
    def parts(self) -> tuple[Part, ...]:
        """All, each once."""
        every = (self.working_dir, *self.modules, self.pip, self.python, self.hook)
        return tuple(dict.fromkeys(part for part in every if part is not None))

    def places(self, root: str) -> Places:
        """Where they are below the cache's directory."""
        python: tuple[str, ...] = ()
        if self.python is not None:
            python = tuple(shlex.split(self.python.detail))
        elif self.pip is not None:
            python = (f"{root}/{self.pip.name}/bin/python",)
        working_dir = self.local_dir
        if self.working_dir is not None:
            working_dir = f"{root}/{self.working_dir.name}"
        return Places(
            working_dir,
            tuple(f"{root}/{part.name}" for part in self.modules),
            python,
            f"{root}/{self.hook.name}" if self.hook is not None else "",
        )


def plan_of(runtime_env: bytes) -> Plan:
    """What the environment (msgpack) is made of. ValueError where it is none.

    A ``working_dir`` that is no URI is a directory of this machine.
    """
    if not runtime_env:
        return Plan()
    try:
        env = msgspec.msgpack.decode(runtime_env, type=dict[str, Any])
        working_dir = env.get("working_dir") or ""
        local_dir = ""
        if working_dir and not working_dir.startswith(SCHEME):
            local_dir, working_dir = working_dir, ""
            if not os.path.isdir(local_dir):
                raise ValueError(
                    f"the working_dir {local_dir!r} of the runtime_env is no directory on this "
                    "machine: name one that is here"
                )
        hook = env.get("worker_process_setup_hook") or ""
        timeout_s = (env.get("config") or {}).get("setup_timeout_seconds", SETUP_TIMEOUT_S)
        return Plan(
            _package(working_dir) if working_dir else None,
            local_dir,
            tuple(_package(uri) for uri in env.get("py_modules") or ()),
            _pip(env["pip"]) if env.get("pip") else None,
            _python(env["py_executable"]) if env.get("py_executable") else None,
            _package(hook) if hook.startswith(SCHEME) else None,
            None if timeout_s == _NO_LIMIT else float(timeout_s),
        )
    except (msgspec.DecodeError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"this is no runtime_env: {error!r}") from error


def _package(uri: str) -> Part:
    file = file_of(uri)
    if file.endswith(".hook"):
        return Part("hook", file, file)
    if file.endswith(".zip"):
        return Part("package", file.removesuffix(".zip"), file)
    return Part("wheel", "whl_" + file.partition(".")[0], file)


def _pip(field: dict[str, Any]) -> Part:
    if not isinstance(field, dict) or not isinstance(field.get("packages"), list):
        raise TypeError(f"pip is {field!r}")
    detail = msgspec.json.encode(field, order="deterministic")
    return Part("pip", f"pip_{_digest(detail)}", detail=detail.decode())


def _python(command: str) -> Part:
    if not shlex.split(command):
        raise ValueError(f"py_executable {command!r} names no program")
    return Part("python", f"python_{_digest(command.encode())}", detail=command)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
