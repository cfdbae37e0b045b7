"""The first program of a job's driver: binds it to the node daemon's life, then becomes it.

Run as a file by a bare interpreter (``python -I -S launcher.py``), so it imports nothing of mray:
``launcher.py NODE_PID STATUS_FD CWD ARGV...``. Why not in the daemon, between fork and exec: the
daemon has threads, and the kernel ties the death signal to the process that asks for it. What goes
wrong is written to STATUS_FD, which closes by itself when the driver's program starts.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Become the driver; returns only where that fails."""
    node_pid, status_fd, cwd = int(arguments[0]), int(arguments[1]), arguments[2]
    argv = arguments[3:]
    os.set_inheritable(status_fd, False)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != node_pid:
        return 1
    _unshield()
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # As a shell would start it.
    try:
        if cwd:
            os.chdir(cwd)
    except OSError as error:
        os.write(status_fd, f"its working directory cannot be entered: {error}".encode())
        return 1
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        os.write(status_fd, f"{argv[0]!r} cannot be run: {error.strerror}".encode())
        return 127


def _unshield() -> None:
    """The kernel spares the node daemon when memory runs out: not so what it starts."""
    with open("/proc/self/oom_score_adj", "r+", encoding="ascii") as file:
        if int(file.read()) < 0:
            file.seek(0)
            file.write("0")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
