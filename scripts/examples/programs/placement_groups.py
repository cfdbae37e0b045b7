"""Room reserved in bundles: actors and tasks in them, and all given back."""

import ray
from ray.util.placement_group import (
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy


@ray.remote(num_cpus=1)
class Member:
    def __init__(self, rank):
        self.rank = rank

    def whoami(self):
        return self.rank, ray.util.get_current_placement_group() is not None


@ray.remote(num_cpus=1)
def inside():
    return ray.util.get_current_placement_group().id.hex()


def main():
    ray.init()
    before = ray.cluster_resources()["CPU"]
    group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="PACK", name="team")
    ray.get(group.ready(), timeout=60)
    assert group.bundle_specs == [{"CPU": 1}, {"CPU": 1}]
    assert placement_group_table(group)["state"] == "CREATED"

    def at(index):
        return PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)

    members = [Member.options(scheduling_strategy=at(n)).remote(n) for n in range(2)]
    assert ray.get([m.whoami.remote() for m in members]) == [(0, True), (1, True)]
    for member in members:
        ray.kill(member)
    assert ray.get(inside.options(scheduling_strategy=at(0)).remote()) == group.id.hex()

    remove_placement_group(group)
    again = placement_group([{"CPU": before}])
    assert again.wait(timeout_seconds=60), "all that was reserved is there again"
    remove_placement_group(again)
    print(f"2 bundles, 2 members; {before:g} CPUs again")


if __name__ == "__main__":
    main()
