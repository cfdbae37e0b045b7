"""Licenses as a resource: never more users of one than there are."""

import time

import ray


@ray.remote
class Desk:
    def __init__(self):
        self.users = self.most = 0

    def enter(self):
        self.users += 1
        self.most = max(self.most, self.users)

    def leave(self):
        self.users -= 1

    def peak(self):
        return self.most


@ray.remote(num_cpus=0, resources={"license": 1})
def work(desk):
    ray.get(desk.enter.remote())
    time.sleep(0.05)
    ray.get(desk.leave.remote())


@ray.remote(num_cpus=0, resources={"license": 0.5})
def share():
    return ray.get_runtime_context().get_assigned_resources()


def main():
    ray.init(address="local", num_cpus=4, resources={"license": 2})
    assert ray.cluster_resources()["license"] == 2
    desk = Desk.remote()
    ray.get([work.remote(desk) for _ in range(8)])
    peak = ray.get(desk.peak.remote())
    assert 1 <= peak <= 2
    assert ray.get(share.remote())["license"] == 0.5
    ready, waiting = ray.wait(
        [share.options(resources={"license": 3}).remote()], timeout=0.3
    )
    assert not ready, "3 licenses are more than there are"
    ray.cancel(waiting[0])
    print("8 users, at most 2 at once")


if __name__ == "__main__":
    main()
