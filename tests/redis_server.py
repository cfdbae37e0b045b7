"""A Redis server of a test's own: the distribution's program, in a directory of the test's."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from .waiting import eventually


class RedisServer:
    """``start()`` and ``stop()`` as often as wished: at one port, over one directory."""

    def __init__(self, directory: Path, *, append_only: bool = True) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("there is no redis-server here (package redis-server)")
        self._program = program
        self._directory = directory
        self._append_only = append_only
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For gcs_storage."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start, and wait until it answers."""
        append = ["--appendonly", "yes", "--appendfsync", "always"] if self._append_only else []
        self._process = subprocess.Popen(
            [
                self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                "--dir", str(self._directory), "--daemonize", "no", *append,
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        eventually(self._answers, what="redis-server answers")

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def flush(self) -> None:
        """Lose everything."""
        with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            assert connection.recv(64).startswith(b"+OK")

    def stop(self) -> None:
        """End it; idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
