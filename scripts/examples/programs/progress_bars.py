"""Progress bars of many workers, drawn in the driver.

Needs: tqdm
"""

import ray
from ray.experimental import tqdm_ray
from ray.experimental.tqdm_ray import tqdm


@ray.remote
def work(name, count):
    done = 0
    for _ in tqdm(range(count), desc=name):
        done += 1
    bar = tqdm(total=2 * count, desc=f"{name} by hand")
    for _ in range(4):
        bar.update(count // 2)
    bar.close()
    return done


def main():
    ray.init()
    assert ray.get([work.remote(f"part {n}", 40) for n in range(3)]) == [40, 40, 40]
    tqdm_ray.safe_print("printed without tearing the bars")
    print("3 workers, 6 bars")


if __name__ == "__main__":
    main()
