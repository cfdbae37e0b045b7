"""A pipeline whose stages hand refs on: big arrays never visit the driver."""

import numpy as np
import ray

BATCH_COUNT = 12
SIZE = 250_000


@ray.remote
def load(number):
    return np.random.default_rng(number).normal(loc=number, size=SIZE)


@ray.remote
def centre(batch):
    assert not batch.flags.writeable, "arguments are read in place, so they are read-only"
    return batch - batch.mean()


@ray.remote
def scale(batch):
    return batch / batch.std()


@ray.remote
def describe(number, batch):
    return number, float(batch.mean()), float(batch.std())


@ray.remote
def run(number):
    """Starts the whole pipeline for one batch and returns the ref of its result at once."""
    return describe.remote(number, scale.remote(centre.remote(load.remote(number))))


def main():
    ray.init(ignore_reinit_error=True)
    pending = ray.get([run.remote(number) for number in range(BATCH_COUNT)])
    done = []
    while pending:
        ready, pending = ray.wait(pending)
        done += ray.get(ready)

    assert sorted(number for number, _, _ in done) == list(range(BATCH_COUNT))
    for number, mean, deviation in done:
        assert abs(mean) < 1e-9, number
        assert abs(deviation - 1) < 1e-9, number
    megabytes = BATCH_COUNT * 3 * SIZE * 8 / 1e6
    print(f"{len(done)} batches through 4 stages, {megabytes:.0f} MB between tasks, none here")


if __name__ == "__main__":
    main()
