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
        old, session = first.daemon("head"), first.session
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
                        # Its own, the one that redials, and the first one's, which it calls.
                        return [n["state"] for n in nodes].count("ALIVE") == 3

                    eventually(back, 40, "the nodes have registered with the second head")
                    # It wakes up: whatever it had in mind, it may not.
                    os.kill(old.pid, signal.SIGCONT)
                    eventually(lambda: not old.alive, 20, "the first head has ended")
                    log = Path(f"{session.logs}/gcs_server.out").read_text()
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


def test_a_stopped_head_gives_way_to_the_next_in_its_own_place(tmp_path: Path) -> None:
    with started(tmp_path / "1") as cluster:
        old = cluster.daemon("head")
        program = cluster.program("""
kept = Counter.options(name="kept", lifetime="detached", max_restarts=0).remote()
say("kept", mray.get(kept.add.remote()))
line()
say("still", mray.get(mray.get_actor("kept").add.remote(), timeout=60))
line()
""")
        program.expect("kept")
        os.kill(old.pid, signal.SIGSTOP)
        eventually(lambda: (stat := read_stat(old.pid)) and stat.state == "T")
        shown = cluster.run("start", "--head", "--port", str(cluster.port))
        assert shown.returncode == 0, shown.stderr
        assert f"(pid {old.pid}) was stopped (SIGSTOP) and held its port" in shown.stderr
        assert "The head is back (epoch 2)" in shown.stdout
        assert not old.alive
        program.tell("on")
        assert program.expect("still") == "2"


def test_a_stopped_head_that_keeps_nothing_is_named_and_left_alone(tmp_path: Path) -> None:
    with started(tmp_path / "1", RAY_gcs_storage="memory") as cluster:
        old = cluster.daemon("head")
        os.kill(old.pid, signal.SIGSTOP)
        eventually(lambda: (stat := read_stat(old.pid)) and stat.state == "T")
        refused = cluster.run("start", "--head", "--port", str(cluster.port))
        assert (refused.returncode, refused.stdout) == (1, "")
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
        assert f"(pid {old.pid}) is stopped (SIGSTOP) and holds the port" in refused.stderr
        assert f"kill -CONT {old.pid}" in refused.stderr
        assert old.alive


def test_a_head_that_cannot_have_its_port_leaves_the_storage_alone(tmp_path: Path) -> None:
    storage = str(tmp_path / "gcs")
    with started(tmp_path / "1", RAY_gcs_storage=storage) as first:
        old = first.daemon("head")
        second = StartedCluster(tmp_path / "2", RAY_gcs_storage=storage)
        os.kill(old.pid, signal.SIGSTOP)
        eventually(lambda: (stat := read_stat(old.pid)) and stat.state == "T")
        words = ("start", "--head", "--port", str(first.port), "--num-cpus", "1")
        try:
            refused = second.run(*words)
            assert (refused.returncode, refused.stdout) == (1, "")
            assert len(refused.stderr.splitlines()) == 1, refused.stderr
            assert f"is held by the head of session {first.session.path} (pid" in refused.stderr
            os.kill(old.pid, signal.SIGCONT)
            # Nobody has taken anything over: it rules on.
            assert first.json("status")
            # One that lives gives way to a head that takes its storage, also at its own port.
            second.port = first.port
            assert "The head is back (epoch 2)" in second.start()
            assert not old.alive
        finally:
            second.close()


def test_nodes_and_programs_follow_a_head_that_begins_anew_in_another_place(
    tmp_path: Path,
) -> None:
    storage = str(tmp_path / "gcs")
    with started(tmp_path / "1", RAY_gcs_storage=storage) as first:
        host, port = host_port(first)
        member = StartedCluster(tmp_path / "m")
        session = first.session
        program = first.program("""
kept = Counter.options(name="kept", lifetime="detached", max_restarts=0).remote()
say("kept", mray.get(kept.add.remote()))
while (name := line()):
    new = Counter.options(name=name, lifetime="detached", num_cpus=1).remote()
    got = mray.get([new.add.remote(), mray.get_actor("kept").add.remote()], timeout=60)
    say("nodes", sum(node["Alive"] for node in mray.nodes()), *got)
""")
        second = StartedCluster(tmp_path / "2", RAY_gcs_storage=storage)
        try:
            joined = member.run("start", "--address", f"{host}:{port}", "--num-cpus", "1")
            assert joined.returncode == 0, joined.stderr
            program.expect("kept")
            first.kill_head()
            assert "The head is back (epoch 2)" in second.start()

            def alive() -> list[str]:
                nodes = second.json("list", "nodes")
                assert isinstance(nodes, list)
                return [node["state"] for node in nodes if node["state"] == "ALIVE"]

            eventually(lambda: len(alive()) == 3, 40, "all nodes have come")
            program.tell("one")
            assert program.expect("nodes") == "3 1 2"
            log = Path(f"{session.logs}/raylet.out").read_text()
            assert f"the head has moved from {host}:{port} to" in log
            # Who looks there finds it, and no head is started in the place that it has left.
            for follower in (first, member):
                shown = follower.run("status", "--json")
                assert shown.returncode == 0, shown.stderr
            assert session.info().role == "node"
            assert not session.resumable(60.0)
            # In its new place it comes back as anywhere.
            second.kill_head()
            second.start()
            eventually(lambda: len(alive()) == 3, 40, "all nodes have come again")
            program.tell("two")
            assert program.expect("nodes") == "3 1 3"
            program.tell("")
            assert program.end() == 0
        finally:
            second.close()
            member.close()
