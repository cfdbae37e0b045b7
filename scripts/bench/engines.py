"""The engines under measure: the Python that has each, and the environment it runs in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
RAY_VERSION = "2.60.0"


class SetupError(Exception):
    """An engine cannot be measured; the text says why and what to do."""


@dataclass(frozen=True)
class Engine:
    """One engine, ready to run: `name` is also the module to import and the command."""

    name: str
    python: str
    #: Sessions, logs and a home of its own: nothing of the user's is read or written.
    folder: Path

    @property
    def command(self) -> str:
        """The engine's command line program."""
        return str(Path(self.python).parent / self.name)

    @property
    def environment(self) -> dict[str, str]:
        """The user's environment without settings of either engine."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MRAY_"))}
        return {
            **kept,
            "HOME": str(self.folder),
            "RAY_TMPDIR": str(self.folder),
            "MRAY_TMPDIR": str(self.folder),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    @property
    def version(self) -> str:
        """The engine's version, and Python's."""
        code = f"import sys, {self.name} as e; print(e.__version__, 'on Python', sys.version[:6])"
        return self.run([self.python, "-P", "-c", code], timeout_s=120).strip()

    def run(self, words: list[str], *, timeout_s: float) -> str:
        """Run a program to its end; what it printed. SetupError when it fails or hangs."""
        # A session of its own, so that a timeout ends all of it.
        with subprocess.Popen(
            words,
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                raise SetupError(f"{self.name}: no end after {timeout_s:g} s") from None
        if process.returncode and not out.strip():
            lines = err.strip().splitlines() or ["it said nothing"]
            raise SetupError(f"{self.name}: exit code {process.returncode}: {lines[-1]}")
        return out

    def close(self) -> None:
        """Remove the engine's folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _folder(name: str) -> Path:
    # Short: both engines have unix sockets below it, whose paths have 107 bytes.
    return Path(tempfile.mkdtemp(prefix=f"{name}-b-", dir="/tmp"))


def mray_engine() -> Engine:
    """mray, installed from this checkout as users install it."""
    made = subprocess.run(
        [str(ROOT / "scripts" / "venv"), str(BUILD / "bench-venv")],
        stdout=subprocess.PIPE,
        text=True,
    )
    if made.returncode:
        raise SetupError("mray could not be installed; the reason is above")
    return Engine("mray", made.stdout.strip(), _folder("mray"))


def ray_engine() -> Engine:
    """Ray, from MRAY_BENCH_RAY_PYTHON or installed once into build/ray-venv."""
    python = os.environ.get("MRAY_BENCH_RAY_PYTHON") or _installed_ray()
    found = subprocess.run(
        [python, "-P", "-c", "import ray; print(ray.__version__)"], capture_output=True, text=True
    )
    version = found.stdout.strip()
    if version != RAY_VERSION:
        reason = f"it has {version}" if version else found.stderr.strip().splitlines()[-1]
        raise SetupError(f"{python} has no Ray {RAY_VERSION}: {reason}")
    return Engine("ray", python, _folder("ray"))


def _installed_ray() -> str:
    venv = BUILD / "ray-venv"
    python = venv / "bin" / "python"
    stamp = venv / f".ray-{RAY_VERSION}"
    if not stamp.exists():
        print(f"installing Ray {RAY_VERSION} into {venv}", file=sys.stderr)
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
        for words in (
            [sys.executable, "-m", "venv", "--clear", str(venv)],
            [*pip, "install", f"ray=={RAY_VERSION}", "numpy"],
        ):
            if subprocess.run(words, stdout=sys.stderr).returncode:
                raise SetupError(f"Ray could not be installed: `{' '.join(words)}` failed")
        stamp.touch()
    return str(python)
