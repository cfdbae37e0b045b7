"""Values of pandas and pyarrow: their columns are views of the bytes they came from."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

from mray.serialization.pickler import deserialize, serialize

ROWS = 1000


def read(value: Any) -> tuple[Any, Any]:
    """The value and the bytes it was read from."""
    data = np.frombuffer(serialize(value).to_bytes(), np.uint8)
    return deserialize(memoryview(data)), data


@pytest.fixture(scope="module")
def frame() -> Any:
    pandas = pytest.importorskip("pandas", reason="the test extra installs pandas")
    return pandas.DataFrame(
        {
            "int": np.arange(ROWS),
            "float": np.ones(ROWS),
            "bool": np.zeros(ROWS, bool),
            "date": pandas.date_range("2020", periods=ROWS),
            "zoned": pandas.date_range("2020", periods=ROWS, tz="UTC"),
            "text": ["abc"] * ROWS,
            "kind": pandas.Categorical(["x", "y"] * (ROWS // 2)),
            "gaps": pandas.array([1, None] * (ROWS // 2), dtype="Int64"),
        }
    )


def test_a_frame_comes_back_equal_and_its_columns_are_views(frame: Any) -> None:
    import pandas

    got, data = read({"frame": frame})
    pandas.testing.assert_frame_equal(got["frame"], frame)
    for name in ("int", "float", "bool", "date"):
        column = got["frame"][name].to_numpy()
        assert not column.flags.writeable
        assert np.shares_memory(column.view(np.ndarray), data), name
    assert np.shares_memory(got["frame"]["zoned"].array.asi8, data)
    assert np.shares_memory(got["frame"]["kind"].array._codes, data)
    assert np.shares_memory(got["frame"]["gaps"].array._data, data)


def test_a_series_of_every_other_row_and_an_index_are_views(frame: Any) -> None:
    import pandas

    series = frame["float"][::2]
    got, data = read(series)
    pandas.testing.assert_series_equal(got, series)
    assert np.shares_memory(got.to_numpy(), data)
    indexed = frame[["int"]].set_index(frame["date"])
    got, data = read(indexed)
    pandas.testing.assert_frame_equal(got, indexed)
    assert np.shares_memory(got.index.to_numpy().view("i8"), data)


def test_changing_a_frame_that_was_read_leaves_the_bytes_alone(frame: Any) -> None:
    got, data = read(frame)
    before = data.tobytes()
    with contextlib.suppress(ValueError):  # or pandas makes a copy first
        got.loc[0, "int"] = 5
    assert data.tobytes() == before


def test_arrow_values_come_back_equal_over_the_same_bytes() -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the test extra installs pyarrow")
    table = pyarrow.table({"a": np.arange(ROWS), "text": ["x"] * ROWS, "gap": [1, None] * 500})
    column = pyarrow.chunked_array([[1, 2], [3]])
    for value in (table, table.to_batches()[0], column, pyarrow.array([1, None, 3])):
        assert read(value)[0].equals(value)
    got, data = read([table])
    buffer = got[0].column("a").chunk(0).buffers()[1]
    assert not buffer.is_mutable
    low = data.ctypes.data
    assert low <= buffer.address < low + len(data)
    raw, data = read(pyarrow.py_buffer(b"x" * 5000))
    assert data.ctypes.data <= raw.address < data.ctypes.data + len(data)
