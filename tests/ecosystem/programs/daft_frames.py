"""Daft on its Ray runner: its scheduler is an async actor, its workers are actors on each node."""

import os
import tempfile

import daft
import ray
from daft import col

ROW_COUNT = 20_000


@daft.cls(max_concurrency=1)
class Scale:
    """Kept in a process of its own between batches."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, value: int) -> int:
        return value * self.factor


@daft.func
def halved(value: int) -> float:
    return value / 2


def main():
    ray.init(num_cpus=2, log_to_driver=False)
    daft.set_runner_ray()
    rows = {"key": [n % 7 for n in range(ROW_COUNT)], "value": list(range(ROW_COUNT))}
    table = daft.from_pydict(rows).into_partitions(4)

    sums = table.groupby("key").agg(col("value").sum().alias("sum")).sort("key").to_pydict()
    assert sums == {
        "key": list(range(7)),
        "sum": [sum(range(key, ROW_COUNT, 7)) for key in range(7)],
    }
    names = daft.from_pydict({"key": [1, 3, 5], "name": ["one", "three", "five"]})
    joined = table.join(names, on="key").groupby("name").agg(col("value").count().alias("n"))
    counted = joined.sort("name").to_pydict()
    assert counted["name"] == ["five", "one", "three"]
    assert counted["n"] == [len(range(key, ROW_COUNT, 7)) for key in (5, 1, 3)]

    few = table.where(col("value") < 50).select(
        col("value"), halved(col("value")).alias("half"), Scale(3)(col("value")).alias("thrice")
    )
    values = few.sort("value").to_pydict()
    assert values["half"] == [n / 2 for n in range(50)]
    assert values["thrice"] == [n * 3 for n in range(50)]

    with tempfile.TemporaryDirectory() as folder:
        table.write_parquet(os.path.join(folder, "rows"))
        back = daft.read_parquet(os.path.join(folder, "rows", "*.parquet"))
        assert back.count_rows() == ROW_COUNT
    print(f"daft {daft.__version__}: {ROW_COUNT:,} rows grouped, joined, mapped, written and read")


if __name__ == "__main__":
    main()
