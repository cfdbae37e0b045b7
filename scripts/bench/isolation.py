"""PID namespaces: what runs in one sees and can end only what was started in it, and ends with it.

`ray stop` ends processes by words in their command lines, anybody's on the machine, and daemons
outlive a program that hangs and is killed. Neither reaches beyond a namespace.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess


@functools.cache
def _prefix() -> tuple[str, ...]:
    """The words that run a command as the first process of a namespace; empty: cannot be made."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    user = () if os.getuid() == 0 else ("--map-root-user",)
    words = (unshare, *user, "--pid", "--fork", "--kill-child", "--mount-proc")
    made = subprocess.run([*words, "true"], capture_output=True)
    return words if made.returncode == 0 else ()


def is_possible() -> bool:
    """Whether this user may make namespaces here."""
    return bool(_prefix())


def as_first(words: list[str]) -> list[str]:
    """`words`, to run as the first process: it inherits, and has to bury, every orphan."""
    return [*_prefix(), *words]


def inside(words: list[str]) -> list[str]:
    """`words`, to run as an ordinary process, below a shell that buries orphans.

    Without namespaces: `words` as they are.
    """
    return [*_prefix(), "/bin/sh", "-c", '"$@"; exit "$?"', "sh", *words] if _prefix() else words
