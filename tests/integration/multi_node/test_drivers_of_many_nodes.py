"""Programs on a cluster of several nodes: attached to any of them, shown the output of all."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from .conftest import Three

pytestmark = pytest.mark.integration

PROGRAM = """
import mray
mray.init(address={address!r})

@mray.remote(num_cpus=0)
def say(word):
    print("said", word)
    return mray.get_runtime_context().get_node_id()

@mray.remote(num_cpus=0, resources={{"left": 1}})
class Echo:
    def say(self, word):
        print("echo", word)
        return word

print("here", mray.get_runtime_context().get_node_id())
for side in ("left", "right"):
    print(side, mray.get(say.options(resources={{side: 1}}).remote(side), timeout=30))
echo = Echo.remote()
assert mray.get(echo.say.remote("twice"), timeout=30) == "twice"
mray.shutdown()
"""


def run(address: str) -> str:
    environ = {**os.environ, "MRAY_SAME_MACHINE_IPC": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(address=address)],
        capture_output=True, text=True, timeout=60, check=False, env=environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("side", ["head", "right"])
def test_a_driver_may_be_on_any_node_and_sees_the_output_of_all(three: Three, side: str) -> None:
    node = getattr(three, side)
    lines = run(node.address).splitlines()
    assert f"here {node.node_id}" in lines
    assert f"left {three.left.node_id}" in lines
    assert f"right {three.right.node_id}" in lines
    shown = [line for line in lines if " pid=" in line.partition(") ")[0]]
    assert {line.partition(") ")[2] for line in shown} >= {"said left", "said right", "echo twice"}


def test_status_shows_every_node(three: Three) -> None:
    def status(*options: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "mray.cli", "status", *options],
            env={**os.environ, "MRAY_ADDRESS": three.cluster.address},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    text = status()
    for node_id in three.ids():
        assert node_id[:12] in text
    facts = json.loads(status("--json"))
    assert [node["draining"] for node in facts["nodes"]] == [False] * 3
