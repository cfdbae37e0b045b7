"""Sort more numbers than the object store holds: each part is cut up for all, and put together.

`mray run --as-ray scripts/examples/shuffle.py [GIB]` sorts 160 MiB where no size is named,
in a store of 75 MiB: the rest passes through the disk. In a cluster that runs, its store is used.
"""

import os
import sys
import time

import numpy as np
import ray

PART_BYTES = 8 * 2**20
LIMIT = 1 << 62


@ray.remote
def cut(seed, parts):
    """Random numbers, divided by size into ``parts``."""
    numbers = np.random.default_rng(seed).integers(0, LIMIT, PART_BYTES // 8)
    target = (numbers // (LIMIT // parts)).clip(max=parts - 1)
    return [numbers[target == part] for part in range(parts)]


@ray.remote
def merge(part, parts, *pieces):
    """Sort what belongs to a part; returns how many there are, their sum, and whether all fit."""
    numbers = np.sort(np.concatenate(pieces))
    low = LIMIT // parts * part
    fits = len(numbers) == 0 or bool(numbers[0] >= low)
    return len(numbers), int(numbers.sum(dtype=np.uint64)), fits


def main():
    gib = float(sys.argv[1]) if len(sys.argv) > 1 else 0.15625
    parts = max(2, round(gib * 2**30 / PART_BYTES))
    if os.environ.get("RAY_ADDRESS"):
        ray.init()
    else:
        ray.init(object_store_memory=75 * 2**20)
    began = time.perf_counter()
    # Fewer, wider columns keep the number of objects in bounds.
    columns = min(parts, 32)
    rows = [cut.options(num_returns=columns).remote(seed, columns) for seed in range(parts)]
    done = ray.get([merge.remote(c, columns, *[row[c] for row in rows]) for c in range(columns)])
    seconds = time.perf_counter() - began
    total = sum(
        int(np.random.default_rng(seed).integers(0, LIMIT, PART_BYTES // 8).sum(dtype=np.uint64))
        for seed in range(parts)
    )
    assert sum(count for count, _, _ in done) == parts * PART_BYTES // 8
    assert sum(part for _, part, _ in done) % 2**64 == total % 2**64
    assert all(fits for _, _, fits in done)
    print(f"shuffled {parts * PART_BYTES / 2**30:.2f} GiB in {seconds:.1f} s, exact", flush=True)


if __name__ == "__main__":
    main()
