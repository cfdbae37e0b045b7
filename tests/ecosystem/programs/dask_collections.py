"""Arrays, data frames and bags of dask, computed on a cluster."""

import dask
import dask.array
import dask.bag
import dask.dataframe
import numpy as np
import pandas
import ray
from ray.util.dask import disable_dask_on_ray, enable_dask_on_ray, ray_dask_get


def arrays():
    numbers = np.arange(360_000, dtype=np.float64).reshape(600, 600) % 101
    blocks = dask.array.from_array(numbers, chunks=(200, 200))
    np.testing.assert_allclose((blocks @ blocks.T).compute(), numbers @ numbers.T)
    np.testing.assert_allclose(blocks.mean(axis=0).compute(), numbers.mean(axis=0))
    np.testing.assert_allclose(
        blocks.rechunk((600, 100)).sum(axis=1).compute(scheduler=ray_dask_get),
        numbers.sum(axis=1),
    )


def frames():
    random = np.random.default_rng(1)
    plain = pandas.DataFrame(
        {"key": random.integers(0, 9, 20_000), "value": random.normal(size=20_000)}
    )
    parts = dask.dataframe.from_pandas(plain, npartitions=6)
    pandas.testing.assert_series_equal(
        parts.groupby("key").value.mean().compute().sort_index(),
        plain.groupby("key").value.mean(),
    )
    names = pandas.DataFrame({"key": range(9), "name": list("abcdefghi")})
    merged = parts.merge(names, on="key").compute()
    assert len(merged) == len(plain)
    assert merged.groupby("name").size().tolist() == plain.groupby("key").size().tolist()


def bags():
    words = dask.bag.from_sequence(["to", "be", "or", "not", "to", "be"] * 50, npartitions=5)
    assert dict(words.frequencies().compute()) == {"to": 100, "be": 100, "or": 50, "not": 50}
    assert words.map(len).filter(lambda size: size == 3).count().compute() == 50


def main():
    ray.init(num_cpus=2, log_to_driver=False)
    enable_dask_on_ray()
    try:
        arrays()
        frames()
        bags()
        # persist() leaves references in the graph, which later work starts from.
        kept = dask.array.ones((400, 400), chunks=100).persist()
        assert float(kept.sum().compute()) == 160_000
    finally:
        disable_dask_on_ray()
    print(f"dask {dask.__version__}: arrays, frames and bags as they should be")


if __name__ == "__main__":
    main()
