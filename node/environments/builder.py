"""``python -m mray.node.environments.builder``: makes one part of an environment, then ends.

A child of the node daemon, whose loop must not wait for disks and pip. Reads an Order (msgpack)
from standard input, writes its log to standard output, and on success the bytes made to descriptor
3. Ends with 0, or with 1 where its log says why it failed; what it had made is removed then.
"""

from __future__ import annotations

import os
import shlex
import shutil
import site
import subprocess
import sys
import venv
from typing import Any, Final

import msgspec

from mray.node.environments.parts import RESULT_FD, Order
from mray.node.workers.child import die_with_parent
from mray.packages import UNPACKED_BYTES_MAX, unpack_zip
from mray.version import VERSION

#: Of Ray: what is given to pip unless the field pip_install_options says otherwise.
_PIP_OPTIONS: Final = ("--disable-pip-version-check", "--no-cache-dir")
_PROBE: Final = (
    "import sys, mray; from mray.version import VERSION as v; "
    "print('mray probe', *sys.version_info[:2], v)"
)


class Unmakeable(Exception):
    """It cannot be made; the text says why."""


def make(order: Order) -> int:
    """Make the part; the bytes it takes. Unmakeable, ValueError, OSError."""
    if order.kind == "package":
        return unpack_zip(order.package, order.target, UNPACKED_BYTES_MAX)
    if order.kind == "hook":
        os.replace(order.package, order.target)
        return os.path.getsize(order.target)
    if order.kind == "wheel":
        os.mkdir(order.target, 0o700)
        _run([*_pip(sys.executable), "install", *_PIP_OPTIONS, "--target", order.target,
              order.package])  # fmt: skip
    elif order.kind == "pip":
        _make_venv(order.target, msgspec.json.decode(order.detail))
    elif order.kind == "python":
        _probe(order.detail)
        return 0
    elif order.kind == "remove":
        shutil.rmtree(order.target)
        return 0
    else:
        raise ValueError(f"there are no parts of kind {order.kind!r}")
    return _size(order.target)


def _make_venv(target: str, field: dict[str, Any]) -> None:
    builder = venv.EnvBuilder(system_site_packages=True, symlinks=True, with_pip=False)
    os.mkdir(target, 0o700)
    builder.create(target)
    python = f"{target}/bin/python"
    # The node's own interpreter may be in a virtual environment, which "system" does not mean.
    # What is installed here comes before it.
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    with open(f"{target}/lib/{version}/site-packages/_mray_node.pth", "w", encoding="utf-8") as pth:
        pth.writelines(f"import site; site.addsitedir({path!r})\n" for path in _own_packages())
    pip = _pip(python)
    if field.get("pip_version"):
        _run([*pip, "install", *_PIP_OPTIONS, f"pip{field['pip_version']}"])
    requirements = f"{target}/requirements.txt"
    with open(requirements, "w", encoding="utf-8") as file:
        file.write("\n".join(field["packages"]) + "\n")
    options = field.get("pip_install_options")
    options = _PIP_OPTIONS if options is None else options
    _run([*pip, "install", *options, "-r", requirements])
    if field.get("pip_check"):
        _run([*pip, "check"])


def _own_packages() -> list[str]:
    known = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        known = [*known, site.getusersitepackages()]
    return [path for path in known if os.path.isdir(path)]


def _pip(python: str) -> list[str]:
    """pip for an interpreter; brought in where there is none."""
    has_pip = subprocess.run([python, "-c", "import pip"], capture_output=True, check=False)
    if has_pip.returncode:
        _run([python, "-m", "ensurepip"])
    return [python, "-m", "pip"]


def _probe(command: str) -> None:
    """Whether a command is an interpreter that can be a worker."""
    words = shlex.split(command)
    try:
        found = subprocess.run(
            [*words, "-c", _PROBE], capture_output=True, text=True, check=False,
            preexec_fn=die_with_parent,
        )  # fmt: skip
    except OSError as error:
        raise Unmakeable(f"py_executable {command!r} cannot be run: {error}") from error
    said = [line for line in found.stdout.splitlines() if line.startswith("mray probe ")]
    if found.returncode or not said:
        raise Unmakeable(
            f"py_executable {command!r} cannot import mray {VERSION}, which a worker needs "
            f"(exit code {found.returncode}):\n{found.stderr.strip()[-2000:]}"
        )
    wanted = f"mray probe {sys.version_info[0]} {sys.version_info[1]} {VERSION}"
    if said[-1] != wanted:
        raise Unmakeable(
            f"py_executable {command!r} is {said[-1].removeprefix('mray probe ')} (Python, mray) "
            f"and the node is {wanted.removeprefix('mray probe ')}: they must be the same"
        )


def _run(command: list[str]) -> None:
    print("$", shlex.join(command), flush=True)
    done = subprocess.run(command, check=False, preexec_fn=die_with_parent)
    if done.returncode:
        raise Unmakeable(f"{shlex.join(command)} ended with exit code {done.returncode}")


def _size(directory: str) -> int:
    total = 0
    for place, _, files in os.walk(directory):
        total += sum(os.lstat(f"{place}/{name}").st_size for name in files)
    return total


def main() -> int:
    """Carry out the order on standard input."""
    die_with_parent()
    os.set_inheritable(RESULT_FD, False)
    order = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Order)
    try:
        size = make(order)
    except (Unmakeable, ValueError, OSError) as error:
        print(f"mray: {error}", flush=True)
        if order.kind not in ("hook", "python"):
            shutil.rmtree(order.target, ignore_errors=True)
        return 1
    finally:
        if order.package and os.path.exists(order.package):
            os.unlink(order.package)
            if order.kind == "wheel":
                os.rmdir(os.path.dirname(order.package))
    os.write(RESULT_FD, str(size).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
