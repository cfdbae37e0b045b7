"""More data than the object store has room for: what is not in use waits on disk."""

import numpy as np
import ray

MIB = 1 << 20


@ray.remote
def make(seed):
    return np.random.default_rng(seed).integers(0, 256, 12 * MIB, dtype=np.uint8)


@ray.remote
def checksum(array):
    return int(array.sum(dtype=np.int64)), int(array[-1])


def main():
    ray.init(address="local", num_cpus=2, object_store_memory=80 * MIB)
    refs = [make.remote(seed) for seed in range(16)]  # 192 MiB
    kept = ray.put(np.arange(MIB))
    sums = ray.get([checksum.remote(ref) for ref in refs])
    for seed in (0, 7, 15):
        array = np.random.default_rng(seed).integers(0, 256, 12 * MIB, dtype=np.uint8)
        assert sums[seed] == (int(array.sum(dtype=np.int64)), int(array[-1]))
        np.testing.assert_array_equal(ray.get(refs[seed]), array)
    assert ray.get(kept)[-1] == MIB - 1
    print("192 MiB through a store of 80")


if __name__ == "__main__":
    main()
