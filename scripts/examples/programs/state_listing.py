"""What a cluster says about itself: nodes, tasks, actors, objects.

Needs on Ray: aiohttp_cors
"""

import time

import ray
from ray.util.state import (
    get_actor,
    list_actors,
    list_nodes,
    list_tasks,
    summarize_tasks,
)


@ray.remote
def plain(number):
    return number


@ray.remote
def breaks():
    raise ValueError("on purpose")


@ray.remote
class Named:
    def ready(self):
        return True


def eventually(condition):
    give_up_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up_at, "the states never came"
        time.sleep(0.1)


def main():
    ray.init()
    job = ray.get_runtime_context().get_job_id()
    ray.get([plain.remote(n) for n in range(5)])
    try:
        ray.get(breaks.remote())
    except ValueError:
        pass
    actor = Named.options(name=f"named-{job}").remote()
    ray.get(actor.ready.remote())

    here = [("job_id", "=", job)]
    eventually(lambda: len(list_tasks(filters=[*here, ("name", "=", "plain")])) == 5)
    eventually(
        lambda: [t.state for t in list_tasks(filters=[*here, ("name", "=", "breaks")])]
        == ["FAILED"]
    )
    [told] = [a for a in list_actors(filters=here) if a.name == f"named-{job}"]
    assert told.class_name == "Named"
    assert get_actor(told.actor_id).state == "ALIVE"
    assert [node.state for node in list_nodes()] == ["ALIVE"]
    assert [node["Alive"] for node in ray.nodes()] == [True]
    summary = summarize_tasks()["cluster"]["summary"]
    assert summary["plain"]["state_counts"]["FINISHED"] >= 5
    print("5 tasks finished, 1 failed, 1 actor alive, 1 node")


if __name__ == "__main__":
    main()
