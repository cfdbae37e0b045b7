"""Loaded by Python at the start of everything below a test that asks for it: writes down each class
that a head or node daemon unpickles. They must unpickle nothing (invariant I12)."""

import os
import sys

_words = sys.orig_argv
_path = os.environ.get("PYTEST_UNPICKLED")
if _path and "mray.node" in _words and _words[-1] in ("head", "node"):
    #: Opened now: the hook may run where opening files is not possible any more.
    _file = os.open(_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _hook(event: str, args: tuple[object, ...]) -> None:
        if event == "pickle.find_class":
            os.write(_file, f"{_words[-1]} pid {os.getpid()}: {args}\n".encode())

    sys.addaudithook(_hook)
    os.write(_file, b"")
