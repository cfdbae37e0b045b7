"""Graphs of dask, run as tasks.

Needs: dask
Needs on Ray: pandas
Needs on Ray: pyarrow
"""

import dask
import ray
from ray.util.dask import disable_dask_on_ray, enable_dask_on_ray, ray_dask_get


@dask.delayed
def load(number):
    return list(range(number))


@dask.delayed
def total(*lists):
    return sum(map(sum, lists))


def main():
    ray.init()
    graph = total(*[load(n) for n in range(10)])
    expected = sum(sum(range(n)) for n in range(10))
    assert graph.compute(scheduler=ray_dask_get) == expected

    enable_dask_on_ray()
    assert dask.compute(graph, load(3)) == (expected, [0, 1, 2])
    with dask.annotate(ray_remote_args={"num_cpus": 2}):
        wide = total(load(5), load(6))
    assert wide.compute(optimize_graph=False) == 25
    disable_dask_on_ray()
    print(f"dask {dask.__version__}: {expected}")


if __name__ == "__main__":
    main()
