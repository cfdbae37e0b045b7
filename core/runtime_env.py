"""Runtime environments as users write them: RuntimeEnv, and the one place that checks them.

Owns names, types and bounds of the fields. Does not pack or upload (packages.py, uploads.py) and
does not merge (environments.py). A field that mray cannot make is refused by name, never ignored.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

FIELDS: Final = (
    "env_vars", "working_dir", "py_modules", "excludes", "pip", "py_executable",
    "worker_process_setup_hook", "config",
)  # fmt: skip
#: Fields of Ray that need what mray does not have.
_REFUSED: Final = frozenset({
    "conda", "container", "image_uri", "uv", "java_jars", "nsight", "rocprof_sys", "mpi",
    "java_jvm_options", "py_container_image", "git", "docker",
})  # fmt: skip
_PIP_FIELDS: Final = ("packages", "pip_check", "pip_version", "pip_install_options")
#: Seconds that setting up an environment may take unless ``config`` says otherwise.
SETUP_TIMEOUT_S: Final = 600


class RuntimeEnvConfig(dict[str, Any]):
    """How an environment is set up: ``setup_timeout_seconds`` (-1: no limit), ``eager_install``
    (set up when the job begins, not with its first task). Equal to the same dict."""

    def __init__(
        self, setup_timeout_seconds: int = SETUP_TIMEOUT_S, eager_install: bool = True
    ) -> None:
        super().__init__(setup_timeout_seconds=setup_timeout_seconds, eager_install=eager_install)
        _config("config", self)


class RuntimeEnv(dict[str, Any]):
    """A runtime environment, checked; equal to the dict of its fields. Fields that are None are
    left out.

    Raises TypeError and ValueError for what is no environment, or one that mray cannot make.
    """

    def __init__(self, **fields: Any) -> None:
        super().__init__(checked(fields))

    @classmethod
    def read(cls, data: bytes) -> RuntimeEnv:
        """An environment from the wire (msgpack; b"" is the empty one). Its paths may be those of
        another machine, so it is not checked again."""
        return _read(msgspec.msgpack.decode(data) if data else {})

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, checked({**self, name: value})[name])

    def set(self, name: str, value: Any) -> None:
        """Set one field."""
        self[name] = value

    def get_field(self, name: str) -> Any:
        """One field, None where it is not set."""
        return self.get(name)

    def to_dict(self) -> dict[str, Any]:
        """A plain copy."""
        return dict(self)

    def env_vars(self) -> dict[str, str]:
        """The variables."""
        return dict(self.get("env_vars") or {})

    def working_dir(self) -> str:
        """The directory, or the URI of its package; "" for none."""
        return str(self.get("working_dir") or "")

    def py_modules(self) -> list[Any]:
        """The modules."""
        return list(self.get("py_modules") or [])

    def py_executable(self) -> str:
        """The command of the interpreter; "" for mray's own."""
        return str(self.get("py_executable") or "")

    def has_working_dir(self) -> bool:
        """Whether there is a working_dir."""
        return bool(self.get("working_dir"))

    def has_pip(self) -> bool:
        """Whether packages are to be installed."""
        return bool(self.get("pip"))

    def pip_config(self) -> dict[str, Any]:
        """What pip is to do; {} for nothing."""
        return dict(self.get("pip") or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return _read, (dict(self),)


def _read(fields: dict[str, Any]) -> RuntimeEnv:
    """What was checked where it was made; its paths are those of another process."""
    env = RuntimeEnv()
    env.update(fields)
    return env


def checked(env: Any, name: str = "runtime_env") -> dict[str, Any]:
    """``env`` as a plain dict in its one form: no None, ``pip`` a dict, paths as strings.

    Raises TypeError for what has the wrong type, ValueError for a value or field that mray cannot
    make. Looks at the file system only for the requirements file of ``pip``.
    """
    if not isinstance(env, Mapping):
        raise TypeError(f"{name} must be a dict or a RuntimeEnv, not {type(env).__name__}: {env!r}")
    found: dict[str, Any] = {}
    for key, value in env.items():
        if key not in FIELDS:
            what = "a field of Ray that mray cannot make" if key in _REFUSED else "no field"
            raise ValueError(f"{name}[{key!r}] is {what}; mray knows {', '.join(FIELDS)}")
        if value is None:
            continue
        made = _CHECKS[key](f"{name}[{key!r}]", value)
        if made is not None:
            found[key] = made
    return found


def _type(name: str, wanted: str, value: Any) -> TypeError:
    return TypeError(f"{name} must be {wanted}, not {type(value).__name__}: {value!r}")


def _env_vars(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise _type(name, "a dict of strings", value)
    for variable, text in value.items():
        if not isinstance(variable, str):
            raise _type(f"{name}: the name {variable!r}", "a string", variable)
        if not isinstance(text, str):
            raise _type(f"{name}[{variable!r}]", "a string", text)
        if not variable or "=" in variable or "\0" in variable + text:
            raise ValueError(f"{name}: {variable!r}={text!r} cannot be a variable of a process")
    return dict(value)


def _working_dir(name: str, value: Any) -> str | None:
    if not isinstance(value, (str, os.PathLike)):
        raise _type(name, "a string or Path: a directory or .zip file", value)
    return _path(name, value) or None


def _path(name: str, value: Any) -> str:
    text = os.fspath(value)
    if not isinstance(text, str):
        raise _type(name, "text", value)
    scheme = text.partition("://")[0] if "://" in text else ""
    if scheme == "file":
        text = text[len("file://") :]
    elif scheme and scheme != "gcs":
        raise ValueError(
            f"{name} is {text!r}: mray fetches nothing from {scheme}://; name a local directory or "
            ".zip file, which is uploaded to the cluster"
        )
    return text


def _py_modules(name: str, value: Any) -> list[Any] | None:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
        raise _type(name, "a list of paths, wheels and modules", value)
    modules: list[Any] = []
    for number, module in enumerate(value):
        if isinstance(module, ModuleType):
            modules.append(_of_module(name, module))
        elif isinstance(module, (str, os.PathLike)):
            modules.append(_path(f"{name}[{number}]", module))
        else:
            raise _type(f"{name}[{number}]", "a path or a module", module)
    return modules or None


def _of_module(name: str, module: ModuleType) -> str:
    places = list(getattr(module, "__path__", ())) or [getattr(module, "__file__", None)]
    if len(places) != 1 or not places[0]:
        raise ValueError(f"{name}: module {module.__name__} is in no single file or directory")
    return str(places[0])


def _excludes(name: str, value: Any) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _type(name, "a list of patterns", value)
    for pattern in value:
        if not isinstance(pattern, str):
            raise _type(name, "a list of strings", pattern)
    return list(value)


def _pip(name: str, value: Any) -> dict[str, Any] | None:
    if isinstance(value, (str, os.PathLike)):
        value = _requirements(name, Path(value))
    if isinstance(value, Mapping):
        extra = sorted(set(map(str, value)) - set(_PIP_FIELDS))
        if extra:
            raise ValueError(f"{name} knows {', '.join(_PIP_FIELDS)}, not {', '.join(extra)}")
        if "packages" not in value:
            raise ValueError(f"{name} needs the field packages")
        made = dict(value)
    elif isinstance(value, Sequence):
        made = {"packages": value}
    else:
        raise _type(name, "a list, a requirements file, or a dict with packages", value)
    if isinstance(made["packages"], str):
        made["packages"] = _requirements(name, Path(made["packages"]))
    for field in ("packages", "pip_install_options"):
        if made.get(field) is None:
            made.pop(field, None)
            continue
        made[field] = _texts(f"{name}[{field!r}]", made[field])
    made.setdefault("pip_check", False)
    if not isinstance(made["pip_check"], bool):
        raise _type(f"{name}['pip_check']", "a bool", made["pip_check"])
    if made.get("pip_version") is None:
        made.pop("pip_version", None)
    elif not isinstance(made["pip_version"], str):
        raise _type(f"{name}['pip_version']", "a string such as '==24.0'", made["pip_version"])
    return made if made.get("packages") else None


def _texts(name: str, value: Any) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _type(name, "a list of strings", value)
    for text in value:
        if not isinstance(text, str):
            raise _type(name, "a list of strings", text)
    return list(dict.fromkeys(value))


def _requirements(name: str, path: Path) -> list[str]:
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: the requirements file {path} cannot be read: {error}") from error
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _py_executable(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _type(name, "a string", value)
    if not value.strip():
        raise ValueError(f"{name} must not be empty")
    return value


def _hook(name: str, value: Any) -> Any:
    if isinstance(value, str):
        parts = value.replace(":", ".").split(".")
        if len(parts) < 2 or not all(part.isidentifier() for part in parts):
            raise ValueError(f"{name} must name a function, as in 'module.function', not {value!r}")
        return value
    if not callable(value):
        raise _type(name, "a function or the name of one", value)
    return value


def _config(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _type(name, "a dict or a RuntimeEnvConfig", value)
    made = dict(value)
    for key, setting in made.items():
        if key == "setup_timeout_seconds":
            if isinstance(setting, bool) or not isinstance(setting, int):
                raise _type(f"{name}[{key!r}]", "an int", setting)
            if setting != -1 and setting <= 0:
                raise ValueError(f"{name}[{key!r}] must be above 0, or -1 for no limit: {setting}")
        elif key == "eager_install":
            if not isinstance(setting, bool):
                raise _type(f"{name}[{key!r}]", "a bool", setting)
        else:
            raise ValueError(f"{name} knows setup_timeout_seconds and eager_install, not {key!r}")
    return made


_CHECKS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "env_vars": _env_vars,
    "working_dir": _working_dir,
    "py_modules": _py_modules,
    "excludes": _excludes,
    "pip": _pip,
    "py_executable": _py_executable,
    "worker_process_setup_hook": _hook,
    "config": _config,
}
