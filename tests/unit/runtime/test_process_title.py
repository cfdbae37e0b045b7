"""The name and the command line that a worker shows."""

from __future__ import annotations

import json
import subprocess
import sys

CODE = """
import json, sys
from pathlib import Path
from mray.runtime import process_title

def shown():
    return Path("/proc/self/comm").read_text().strip(), Path("/proc/self/cmdline").read_bytes()

size = len(shown()[1])
told = [size]
for text in ("ray::f", "ray::" + "long" * 100, "ray::Ünder", "ray::IDLE"):
    process_title.show(text)
    name, words = shown()
    told.append((name, words.rstrip(b"\\0").decode("utf-8", "replace"), len(words) == size))
print(json.dumps(told))
"""


def test_a_title_is_shown_in_both_and_cut_where_it_is_too_long() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, "some words"], capture_output=True, text=True, check=True
    )
    size, *told = json.loads(done.stdout)
    assert told[0] == ["ray::f", "ray::f", True]
    long = "ray::" + "long" * 100
    assert told[1] == [long[:15], long[: size - 1], True]
    assert told[2] == ["ray::Ünder", "ray::Ünder", True]
    assert told[3] == ["ray::IDLE", "ray::IDLE", True]
