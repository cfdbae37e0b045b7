"""Parts of GPUs: who shares one, and what CUDA_VISIBLE_DEVICES says. No GPU is needed."""

import collections
import os

import ray


@ray.remote(num_gpus=0.5, num_cpus=0)
class Half:
    def device(self):
        ids = ray.get_gpu_ids()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, ids))
        return ids


@ray.remote(num_gpus=2, num_cpus=0)
def both():
    return sorted(int(number) for number in ray.get_gpu_ids())


@ray.remote
def none():
    return ray.get_gpu_ids()


def main():
    ray.init(address="local", num_cpus=2, num_gpus=2)
    halves = [Half.remote() for _ in range(4)]
    devices = [ray.get(half.device.remote()) for half in halves]
    shared = collections.Counter(int(ids[0]) for ids in devices)
    assert shared == {0: 2, 1: 2}, shared
    assert ray.get(none.remote()) == []
    for half in halves:
        ray.kill(half)
    assert ray.get(both.remote()) == [0, 1]
    print("4 halves on 2 GPUs, then both for one")


if __name__ == "__main__":
    main()
