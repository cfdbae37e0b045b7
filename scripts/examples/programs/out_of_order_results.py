"""Take results as they come, and give up on what takes too long."""

import time

import ray


@ray.remote(num_cpus=0.1)
def step(number, seconds):
    time.sleep(seconds)
    return number


def main():
    ray.init()
    ray.get([step.remote(0, 0) for _ in range(8)])  # The workers are there now.
    slow = step.remote("slow", 600)
    refs = [step.remote(number, (5 - number) * 0.15) for number in range(6)]
    number_of = {ref: number for number, ref in enumerate(refs)}
    came, waiting = [], [*refs, slow]
    while len(waiting) > 1:
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=60)
        came += [number_of[ref] for ref in ready]
    assert sorted(came) == [0, 1, 2, 3, 4, 5]
    assert came != [0, 1, 2, 3, 4, 5]
    ready, waiting = ray.wait([slow], timeout=0.1)
    assert (ready, waiting) == ([], [slow])
    ray.cancel(slow, force=True)
    print(f"came as {came}")


if __name__ == "__main__":
    main()
