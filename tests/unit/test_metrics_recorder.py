"""The table of metrics of a process: what changed is told once, as it stands."""

from __future__ import annotations

import os
import threading

import pytest

from mray.metrics_recorder import Recorder
from mray.wire.messages import MetricFamily, MetricPoint


@pytest.fixture
def records():
    made = Recorder(series_max=3)
    yield made
    made.check()


def told(records):
    """Values by name and tags, and how many were refused."""
    families, refused = records.take()
    points = {
        (family.name, *sorted(point.tags.items())): point.values
        for family in families
        for point in family.points
    }
    return points, refused


def test_what_stands_is_told_and_only_of_what_changed(records):
    counter = records.family("c", "counter")
    gauge = records.family("g", "gauge")
    records.add(counter, (("k", "1"),), 2)
    records.add(counter, (("k", "2"),), 1)
    records.set(gauge, (), 5)
    assert told(records) == ({("c", ("k", "1")): [2.0], ("c", ("k", "2")): [1.0], ("g",): [5.0]}, 0)
    records.add(counter, (("k", "1"),), 0.5)
    assert told(records) == ({("c", ("k", "1")): [2.5]}, 0)
    assert told(records) == ({}, 0)


def test_a_value_on_a_boundary_is_below_it(records):
    histogram = records.family("h", "histogram", boundaries=[10, 1])
    for value in (0.5, 1, 10, 10.5, -3):
        records.observe(histogram, (), value)
    families, _ = records.take()
    assert families == [
        MetricFamily("h", "histogram", "", [1.0, 10.0], [MetricPoint({}, [3.0, 1.0, 1.0, 19.0])])
    ]


def test_one_name_is_one_family(records):
    assert records.family("c", "counter") is records.family("c", "counter", "again")
    assert records.family("c", "counter") is not records.family("c", "gauge")
    one = records.family("h", "histogram", boundaries=[2, 1, 1])
    assert one is records.family("h", "histogram", boundaries=(1.0, 2.0))


def test_the_first_record_after_a_report_wakes_once(records):
    wakes = []
    records.report_to(lambda: wakes.append(1))
    counter = records.family("c", "counter")
    records.add(counter, (), 1)
    records.add(counter, (), 1)
    assert len(wakes) == 1
    records.take()
    records.add(counter, (), 1)
    assert len(wakes) == 2


def test_what_was_recorded_before_anybody_listens_wakes_at_once(records):
    wakes = []
    records.add(records.family("c", "counter"), (), 1)
    records.report_to(lambda: wakes.append(1))
    assert wakes == [1]


def test_too_many_series_are_refused_with_one_warning(records, caplog):
    gauge = records.family("g", "gauge")
    histogram = records.family("h", "histogram", boundaries=[1])
    for number in range(5):
        records.set(gauge, (("id", str(number)),), number)
    records.add(records.family("c", "counter"), (), 1)
    records.observe(histogram, (), 1)
    points, refused = told(records)
    assert len(points) == 3
    assert refused == 4
    assert len(caplog.records) == 1
    assert "'id': '3'" in caplog.text
    records.set(gauge, (("id", "0"),), 9)
    assert told(records) == ({("g", ("id", "0")): [9.0]}, 4)


def test_cleared_it_begins_at_nothing(records):
    counter = records.family("c", "counter")
    records.add(counter, (), 5)
    records.clear()
    assert told(records) == ({}, 0)
    records.add(counter, (), 1)
    assert told(records) == ({("c",): [1.0]}, 0)


def test_threads_lose_nothing(records):
    counter = records.family("c", "counter")

    def work():
        for _ in range(2000):
            records.add(counter, (), 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told(records) == ({("c",): [8000.0]}, 0)


def test_a_finalizer_may_record_while_a_record_is_made(records):
    counter = records.family("c", "counter")

    class Late:
        def __radd__(self, other):
            records.add(counter, (("from", "finalizer"),), 1)
            return other + 1.0

    records.add(counter, (), 1)
    records.add(counter, (), Late())
    assert told(records)[0] == {("c",): [2.0], ("c", ("from", "finalizer")): [1.0]}


def test_a_forked_child_has_nothing_of_its_parent(records):
    counter = records.family("c", "counter")
    records.report_to(lambda: None)
    records.add(counter, (), 5)
    held = threading.Event()
    release = threading.Event()

    def hold():
        with records._lock:
            held.set()
            release.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    pid = os.fork()
    if pid == 0:
        records.begin_in_fork()
        records.add(counter, (), 1)
        os._exit(0 if told(records) == ({("c",): [1.0]}, 0) else 1)
    release.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert told(records) == ({("c",): [5.0]}, 0)
