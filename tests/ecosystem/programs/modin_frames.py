"""modin on its Ray engine gives what plain pandas gives."""

import os
import tempfile

import modin.config
import modin.pandas as frames
import numpy as np
import pandas
import ray
from pandas.testing import assert_frame_equal, assert_series_equal

ROW_COUNT = 60_000


def plain(frame):
    """A frame of modin as one of pandas."""
    return frame._to_pandas()


def sales(folder):
    """A table of sales as a file, with what real files have: gaps, dates, text."""
    random = np.random.default_rng(7)
    amounts = random.gamma(2.0, 30.0, ROW_COUNT).round(2)
    amounts[random.integers(0, ROW_COUNT, 500)] = np.nan
    table = pandas.DataFrame(
        {
            "shop": random.integers(0, 40, ROW_COUNT),
            "day": pandas.Timestamp("2026-01-01")
            + pandas.to_timedelta(random.integers(0, 300, ROW_COUNT), unit="D"),
            "kind": random.choice(["bread", "milk", "tea", "salt"], ROW_COUNT),
            "amount": amounts,
        }
    )
    path = os.path.join(folder, "sales.csv")
    table.to_csv(path, index=False)
    return path


def main():
    modin.config.Engine.put("ray")
    ray.init(num_cpus=2, log_to_driver=False)
    shops = pandas.DataFrame({"shop": range(40), "town": [f"town {n % 7}" for n in range(40)]})
    with tempfile.TemporaryDirectory() as folder:
        path = sales(folder)
        theirs = pandas.read_csv(path, parse_dates=["day"])
        ours = frames.read_csv(path, parse_dates=["day"])
        assert_frame_equal(plain(ours), theirs)

    assert_frame_equal(
        plain(ours.groupby(["shop", "kind"]).agg({"amount": ["sum", "mean", "count"]})),
        theirs.groupby(["shop", "kind"]).agg({"amount": ["sum", "mean", "count"]}),
    )
    merged = ours.merge(frames.DataFrame(shops), on="shop", how="left")
    assert_frame_equal(plain(merged), theirs.merge(shops, on="shop", how="left"))

    def net(row):
        return row["amount"] / (1.07 if row["kind"] == "bread" else 1.19)

    some = theirs.head(3000)
    assert_series_equal(
        plain(ours.head(3000).apply(net, axis=1)), some.apply(net, axis=1), check_names=False
    )
    assert_frame_equal(
        plain(ours.sort_values(["amount", "day", "shop", "kind"], ignore_index=True)),
        theirs.sort_values(["amount", "day", "shop", "kind"], ignore_index=True),
    )
    assert_frame_equal(plain(ours.isna().sum().to_frame()), theirs.isna().sum().to_frame())
    assert_frame_equal(
        plain(ours.pivot_table(index="kind", values="amount", aggfunc="max")),
        theirs.pivot_table(index="kind", values="amount", aggfunc="max"),
    )
    assert ray.is_initialized(), "modin used the cluster of this program"
    print(f"modin {modin.__version__}: {len(ours):,} rows as pandas has them")


if __name__ == "__main__":
    main()
