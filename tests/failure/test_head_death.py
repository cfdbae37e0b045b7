"""The head is killed, and started again: what runs goes on, and what it confirmed is still so."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..started import Program, StartedCluster, started
from ..waiting import eventually

pytestmark = pytest.mark.failure

#: Commands: "check NAME" uses everything that needs the head; "load" is asked what its threads did.
LOADED = """
kept = Counter.options(name="kept", lifetime="detached").remote()
own = Counter.remote()
say("kept", mray.get(kept.add.remote()), mray.get(kept.pid.remote()))
over = threading.Event()
rounds, wrong = [0], []

def load():
    while not over.is_set():
        numbers = list(range(20))
        try:
            got = mray.get([square.remote(x) for x in numbers], timeout=90)
            got += [mray.get(Counter.options(num_cpus=0).remote().add.remote(), timeout=90)]
            mray.get(own.add.remote(), timeout=90)
        except Exception as error:
            wrong.append(repr(error))
            return
        if got != [x * x for x in numbers] + [1]:
            wrong.append(got)
        rounds[0] += 1

threads = []
while (command := line()):
    word, _, name = command.partition(" ")
    if word == "load":
        threads.append(threading.Thread(target=load))
        threads[-1].start()
    elif word == "rounds":
        say("rounds", rounds[0], wrong)
    elif word == "check":
        found = mray.get_actor("kept")
        new = Counter.options(name=name, lifetime="detached").remote()
        group = mray.util.placement_group([{"CPU": 0.01}], name=name)
        mray.get(group.ready())
        mray.get(new.add.remote())
        say("checked", mray.get(found.add.remote()), mray.get(found.pid.remote()),
            mray.get(own.pid.remote()))
over.set()
[thread.join() for thread in threads]
say("over", rounds[0], wrong)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartedCluster]:
    with started(tmp_path_factory.mktemp("c")) as cluster:
        yield cluster


def test_tasks_actors_and_gets_go_on_while_the_head_is_away(cluster: StartedCluster) -> None:
    program = cluster.program("""
@mray.remote
def slow():
    open("slow-began", "w").close()
    while not os.path.exists("go-on"):
        time.sleep(0.01)
    return "slow"

pending = slow.remote()
while not os.path.exists("slow-began"):
    time.sleep(0.01)
actor = Counter.remote()
mray.get([actor.add.remote(), square.remote(2)])  # The other worker has the function.
big = mray.put(b"x" * 1_000_000)
say("ready")
line()

@mray.remote
def new():
    return "new"

made = [actor.add.remote(), square.remote(3), new.remote()]
say("away", mray.get(made, timeout=10), len(mray.get(big)))
waiting = Counter.remote().add.remote()
try:
    mray.get(waiting, timeout=0.5)
except mray.exceptions.GetTimeoutError as error:
    say("why", str(error).replace(chr(10), " "))
line()
say("back", mray.get([pending, waiting], timeout=30))
""")
    program.expect("ready")
    head_id = cluster.session.info().head_id
    cluster.kill_head()
    eventually(lambda: "this node goes on" in cluster.log("raylet"))
    program.tell("the head is away")
    assert program.expect("away") == "[2, 9, 'new'] 1000000"
    assert "the head of the cluster is away" in program.expect("why")
    for words in (["status"], ["status", "--json"], ["list", "actors"]):
        shown = cluster.run(*words)
        assert shown.returncode == 1
        assert "is away, for" in shown.stderr
        assert "Traceback" not in shown.stderr
    assert "The head is back (epoch 2)" in cluster.start()
    (cluster.folder / "go-on").touch()
    program.tell("the head is back")
    assert program.expect("back") == "['slow', 1]"
    assert program.end() == 0
    assert cluster.session.info().head_id == head_id
    assert cluster.run("status").returncode == 0


@pytest.mark.parametrize(
    "rounds", [3, pytest.param(20, marks=[pytest.mark.soak, pytest.mark.timeout(600)])]
)
@pytest.mark.parametrize("loaded", [False, True])
def test_a_head_that_is_killed_again_and_again(tmp_path: Path, rounds: int, loaded: bool) -> None:
    with started(tmp_path / "c") as cluster:
        program = cluster.program(LOADED)
        _, pid = program.expect("kept").split()
        if loaded:
            program.tell("load")
        own_pid = ""
        for number in range(rounds):
            before = progress(program) if loaded else 0
            if loaded:  # In the middle of something.
                eventually(lambda before=before: progress(program) > before, 60)  # type: ignore[misc]
            cluster.kill_head()
            cluster.start()
            program.tell(f"check {number}")
            count, found_pid, found_own = program.expect("checked", 60).split()
            # The same lives, which have forgotten nothing.
            assert (int(count), found_pid) == (number + 2, pid)
            assert own_pid in ("", found_own)
            own_pid = found_own
        program.tell("")
        assert program.expect("over", 60).endswith("[]")
        assert program.end() == 0
        listed = cluster.json("list", "actors")
        assert isinstance(listed, list)
        alive = [actor for actor in listed if actor["state"] == "ALIVE"]
        names = sorted(actor["name"] for actor in alive)
        assert names == sorted(["kept", *(str(number) for number in range(rounds))])
        assert cluster.log("gcs_server").count("takes up the cluster") == rounds
        assert "ERROR" not in cluster.log("gcs_server")


def progress(program: Program) -> int:
    program.tell("rounds")
    rounds, _, wrong = program.expect("rounds").partition(" ")
    assert wrong == "[]"
    return int(rounds)


def test_what_ended_while_the_head_was_away_is_noticed(cluster: StartedCluster) -> None:
    program = cluster.program("""
restarts = Counter.options(max_task_retries=-1).remote()
ends = Counter.options(max_restarts=0).remote()
say("pids", *mray.get([restarts.pid.remote(), ends.pid.remote()]))
line()
say("again", mray.get(restarts.add.remote(), timeout=30))
try:
    mray.get(ends.add.remote(), timeout=30)
except mray.exceptions.RayActorError as error:
    say("ended", type(error).__name__)
""")
    other = cluster.program("""
orphan = Counter.options(name="orphan").remote()
mray.get(orphan.add.remote())
say("ready")
line()
""")
    pids = program.expect("pids").split()
    other.expect("ready")
    cluster.kill_head()
    for pid in pids:
        os.kill(int(pid), signal.SIGKILL)
    other.close()
    cluster.start()
    program.tell("the head is back")
    assert program.expect("again") == "1"
    assert program.expect("ended") == "ActorDiedError"
    assert program.end() == 0

    def states() -> dict[str, str]:
        listed = cluster.json("list", "actors")
        assert isinstance(listed, list)
        return {actor["name"]: actor["state"] for actor in listed}

    eventually(lambda: states()["orphan"] == "DEAD")


def test_a_submitted_job_goes_on_and_its_end_is_known(cluster: StartedCluster) -> None:
    go_on = cluster.folder / "job-goes-on"
    script = (
        "import os, time, mray; mray.init(); print('began', flush=True)\n"
        f"while not os.path.exists({str(go_on)!r}): time.sleep(0.01)\n"
        "print(mray.get(mray.remote(lambda: 7).remote()))\n"
    )
    (cluster.folder / "job.py").write_text(script)
    done = cluster.run("submit", "--no-wait", "--submission-id", "lasting", "job.py")
    assert done.returncode == 0, done.stdout + done.stderr
    eventually(lambda: "began" in cluster.run("job", "logs", "lasting").stdout)
    cluster.kill_head()
    cluster.start()
    go_on.touch()
    eventually(lambda: "succeeded" in cluster.run("job", "status", "lasting").stdout, 30)
    assert "7" in cluster.run("job", "logs", "lasting").stdout


def test_a_program_that_comes_while_the_head_is_away_waits(cluster: StartedCluster) -> None:
    cluster.kill_head()
    program = cluster.program("say('joined', mray.get(square.remote(5)))")
    program.expect("mray: the head of")
    cluster.start()
    assert program.expect("joined") == "25"
    assert program.end() == 0


def test_a_machine_that_lost_head_and_node_takes_its_members_back(tmp_path: Path) -> None:
    with started(tmp_path / "c") as cluster:
        member = StartedCluster(tmp_path / "m")
        joined = member.run("start", "--address", cluster.session.info().head_tcp)
        try:
            assert joined.returncode == 0, joined.stderr
            cluster_id = cluster.session.info().cluster_id
            dead = [cluster.daemon(kind) for kind in ("head", "node")]
            for record in dead:
                os.kill(record.pid, signal.SIGKILL)
            eventually(lambda: not any(record.alive for record in dead))
            assert "The head is back (epoch 2)" in cluster.start()
            assert cluster.session.info().cluster_id == cluster_id

            def states() -> list[str]:
                nodes = cluster.json("list", "nodes")
                assert isinstance(nodes, list)
                return sorted(node["state"] for node in nodes if node["state"] != "SUSPECT")

            eventually(lambda: states() == ["ALIVE", "ALIVE", "DEAD"], 30)
        finally:
            member.close()


def test_nodes_and_programs_end_when_the_head_does_not_come_back(tmp_path: Path) -> None:
    with started(tmp_path / "c", RAY_gcs_rpc_server_reconnect_timeout_s="1") as cluster:
        waits = cluster.program("""
lasting = Counter.options(name="d", lifetime="detached").remote()
say("pid", mray.get(lasting.pid.remote()))
line()
""")
        gets = cluster.program(
            "mray.get(square.remote(1)); say('ready')\n"
            "mray.get(mray.remote(lambda: time.sleep(1000)).remote())"
        )
        waits.expect("pid")
        gets.expect("ready")
        pid = cluster.kill_head()
        for program in (waits, gets):
            assert program.end() == 1
            said = [line for line in program.output.splitlines() if "this program ends" in line]
            assert len(said) == 1
            assert f"the head (pid {pid}) has ended and did not come back within 1" in said[0]
            assert "Traceback" not in program.output
        eventually(lambda: cluster.left() == [], what="nothing is left")
        assert "has ended with code 1" in cluster.log("raylet")
        with open(f"{cluster.session.logs}/raylet.err", encoding="utf-8") as file:
            assert "did not come back within" in file.read()
        # A start begins a new cluster, and cleans up after the old one.
        assert "Head and node are up" in cluster.start()


def test_a_detached_actor_comes_to_a_node_that_never_had_its_job(tmp_path: Path) -> None:
    with started(tmp_path / "c") as cluster:
        members = [StartedCluster(tmp_path / name) for name in ("m1", "m2")]
        join = ["start", "--address", cluster.session.info().head_tcp, "--resources", '{"m": 1}']
        try:
            assert members[0].run(*join).returncode == 0
            maker = cluster.program("""
kept = Counter.options(
    name="kept", lifetime="detached", resources={"m": 1}, max_task_retries=-1
).remote()
say("made", mray.get(kept.add.remote()))
""")
            maker.expect("made")
            assert maker.end() == 0
            # Its job is over; the head begins anew and knows of it from its storage.
            cluster.kill_head()
            cluster.start()
            assert members[1].run(*join).returncode == 0
            os.kill(members[0].daemons()[0].pid, signal.SIGKILL)
            finder = cluster.program('say("found", mray.get(mray.get_actor("kept").add.remote()))')
            assert finder.expect("found") == "1"
            assert finder.end() == 0
        finally:
            for member in members:
                member.close()
