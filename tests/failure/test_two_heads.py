"""Two heads of one cluster: the older is obeyed by nobody, writes nothing, and ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mray.process import read_stat

from ..proxy import Proxy
from ..started import StartedCluster, started
from ..waiting import eventually

pytestmark = pytest.mark.failure


def host_port(cluster: StartedCluster) -> tuple[str, int]:
    host, _, port = cluster.session.info().head_tcp.rpartition(":")
    return host, int(port)


def test_a_head_that_stood_still_while_another_took_over_ends(tmp_path: Path) -> None:
    storage = str(tmp_path / "gcs")
    settings = {"RAY_gcs_storage_path": storage}
    with started(tmp_path / "1", **settings) as first:
        old = first.daemon("head")
        program = first.program("""
kept = Counter.options(name="kept", lifetime="detached", max_restarts=0).remote()
say("kept", mray.get(kept.pid.remote()))
line()
""")
        program.expect("kept")
        # A node that finds the head by a name that can be moved.
        with Proxy(host_port(first)) as way:
            member = StartedCluster(tmp_path / "m", **settings)
            joined = member.run("start", "--address", way.address, "--num-cpus", "1")
            try:
                assert joined.returncode == 0, joined.stderr
                os.kill(old.pid, signal.SIGSTOP)
                eventually(lambda: (stat := read_stat(old.pid)) and stat.state == "T")
                with started(tmp_path / "2", **settings) as second:
                    assert second.session.info().head_id == first.session.info().head_id
                    assert "epoch 2 takes up the cluster" in second.log("gcs_server")
                    way.target = host_port(second)
                    way.cut()

                    def back() -> bool:
                        nodes = second.json("list", "nodes")
                        assert isinstance(nodes, list)
                        return [n["state"] for n in nodes].count("ALIVE") == 2

                    eventually(back, 40, "the node has registered with the second head")
                    # It wakes up: whatever it had in mind, it may not.
                    os.kill(old.pid, signal.SIGCONT)
                    eventually(lambda: not old.alive, 20, "the first head has ended")
                    log = first.log("gcs_server")
                    assert log.count("this head ends: another head of this cluster") == 1
                    assert "Traceback" not in log
                    eventually(back)
            finally:
                member.close()


@pytest.mark.soak
def test_a_head_beside_one_that_lives_takes_over_and_that_one_ends(tmp_path: Path) -> None:
    storage = str(tmp_path / "gcs")
    with started(tmp_path / "1", RAY_gcs_storage_path=storage) as first:
        old = first.daemon("head")
        with started(tmp_path / "2", RAY_gcs_storage_path=storage):
            eventually(lambda: not old.alive, 20, "the first head has ended")
