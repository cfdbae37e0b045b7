"""Runs a script as Python would, with ``import ray`` meaning mray where that is wanted.

    python -m mray.launch [--as-ray] [--init JSON] script.py [args]
    python -m mray.launch [--as-ray] [--init JSON] -m module [args]

The script is ``__main__`` in a module of its own, so that its globals live until the very end, and
tracebacks begin in it, not here. Exit codes are Python's; an uncaught KeyboardInterrupt ends with
130. `mray run` and `mray submit` go through here.

The alias is on where MRAY_AS_RAY=1 or --as-ray asks for it, or where no real Ray is installed; off
where MRAY_AS_RAY=0. Where a real Ray is left in place, a script that imports it is told so. --init
gives arguments of init() that hold where the script gives none.
"""

from __future__ import annotations

import builtins
import importlib.util
import io
import json
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import NoReturn

from mray import compat, init_defaults

_USAGE = "python -m mray.launch [--as-ray] [--init JSON] (script.py | -m module) [args]"


class _RealRayNotice:
    """Says once, when the script imports a real Ray, that it is not mray it gets."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "ray":
            sys.meta_path.remove(self)
            print(
                f"mray: `import ray` takes the real Ray at {compat.real_ray()}; "
                "use --as-ray to run this script on mray",
                file=sys.stderr,
            )


def main(argv: Sequence[str]) -> NoReturn:
    """Run what ``argv`` (without the program) names. Never returns: SystemExit."""
    arguments, as_ray = list(argv), False
    while arguments:
        if arguments[0] == "--as-ray":
            as_ray = True
            del arguments[0]
        elif arguments[0] == "--init" and len(arguments) > 1:
            init_defaults.values.update(json.loads(arguments[1]))
            del arguments[:2]
        else:
            break
    if not arguments or arguments == ["-m"] or (arguments[0][:1] == "-" and arguments[0] != "-m"):
        _refuse(f"usage: {_USAGE}", 2)
    try:
        _set_up_alias(as_ray)
    except (ValueError, ImportError) as error:
        _refuse(str(error), 2)
    if arguments[0] == "-m":
        run_module(arguments[1], arguments[2:])
    run_script(arguments[0], arguments[1:])


def _set_up_alias(as_ray: bool) -> None:
    wanted = True if as_ray else compat.forced(os.environ)
    if wanted is False:
        return
    if wanted or compat.real_ray() is None:
        compat.install(force=True)
        # For the processes that the script starts through mray's own launcher.
        if wanted:
            os.environ[compat.SWITCH] = "1"
    else:
        sys.meta_path.insert(0, _RealRayNotice())


def run_script(path: str, arguments: Sequence[str]) -> NoReturn:
    """Run the file as ``python path *arguments`` would; ends in SystemExit."""
    full_path = os.path.abspath(path)
    try:
        with io.open_code(full_path) as file:
            source = file.read()
    except OSError as error:
        _refuse(f"cannot open the script {path}: {error.strerror}", 2)
    sys.argv = [path, *arguments]
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(full_path))
    code = _compile(source, full_path)
    main_module = _make_main(full_path, None)
    main_module.__loader__ = SourceFileLoader("__main__", full_path)
    _run(code, main_module)


def run_module(name: str, arguments: Sequence[str]) -> NoReturn:
    """Run the module as ``python -m name *arguments`` would; ends in SystemExit."""
    if not sys.flags.safe_path:
        sys.path[0] = os.getcwd()
    try:
        spec = _find_main(name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        _refuse(f"cannot run the module {name}: {error}", 1)
    loader = spec.loader
    code = None
    if loader is not None and hasattr(loader, "get_code"):
        try:
            code = loader.get_code(spec.name)
        except SyntaxError as error:
            _show(error, None)
            raise SystemExit(1) from None
    if code is None or spec.origin is None:
        _refuse(f"cannot run the module {name}: it has no code", 1)
    sys.argv = [spec.origin, *arguments]
    _run(code, _make_main(spec.origin, spec))


def _find_main(name: str) -> ModuleSpec:
    """The spec of the module to run: of ``name``, or of ``name.__main__`` for a package."""
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        name += ".__main__"
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ImportError("it is a package without __main__")
    if spec is None:
        raise ImportError(f"no module named {name}")
    return spec


def _compile(source: bytes, path: str) -> CodeType:
    try:
        return compile(source, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes
        _show(error, None)
        raise SystemExit(1) from None


def _make_main(path: str, spec: ModuleSpec | None) -> ModuleType:
    """A fresh ``__main__`` in place of this module."""
    module = ModuleType("__main__")
    module.__spec__ = spec
    module.__package__ = spec.parent if spec is not None else None
    module.__loader__ = spec.loader if spec is not None else None
    module.__dict__.update(
        __file__=path, __cached__=None, __builtins__=builtins, __annotations__={}
    )
    sys.modules["__main__"] = module
    return module


def _run(code: CodeType, module: ModuleType) -> NoReturn:
    try:
        exec(code, module.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        # The first frame is ours.
        _show(error, error.__traceback__.tb_next if error.__traceback__ else None)
        raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 1) from None
    raise SystemExit(0)


def _show(error: BaseException, traceback: TracebackType | None) -> None:
    """Print an uncaught exception by sys.excepthook, as the interpreter does."""
    error = error.with_traceback(traceback)
    try:
        sys.excepthook(type(error), error, traceback)
    except SystemExit:
        raise
    except BaseException as second:
        print("Error in sys.excepthook:", file=sys.stderr)
        sys.__excepthook__(type(second), second, second.__traceback__)
        print("\nOriginal exception was:", file=sys.stderr)
        sys.__excepthook__(type(error), error, traceback)


def _refuse(text: str, code: int) -> NoReturn:
    print(f"mray: {text}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
