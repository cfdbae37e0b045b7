"""What the head tells every node of the others."""

from __future__ import annotations

from mray.node.head.news import NEWS_EVERY_S, News
from mray.wire.messages import ClusterNews, Heartbeat


def beat(node: bytes, cpus: int, **more: object) -> Heartbeat:
    return Heartbeat(node, {"CPU": cpus}, [({"CPU": 1}, 3)], 7, 0, **more)  # type: ignore[arg-type]


def names(news: ClusterNews | None) -> list[bytes]:
    return [] if news is None else [one.node_id for one in news.nodes]


def test_only_what_changed_is_told_and_rarely() -> None:
    news = News()
    news.heard(beat(b"a", 1))
    news.heard(beat(b"b", 1))
    told = news.take(2, 0.0)
    assert names(told) == [b"a", b"b"]
    assert told is not None
    assert (told.nodes[0].waiting, told.nodes[0].store_used_bytes) == (3, 7)
    news.heard(beat(b"a", 1))
    assert news.deadline() is None
    news.heard(beat(b"b", 0))
    assert news.take(2, NEWS_EVERY_S / 2) is None
    assert news.deadline() == NEWS_EVERY_S
    assert names(news.take(2, NEWS_EVERY_S)) == [b"b"]


def test_what_changed_and_changed_back_is_no_news() -> None:
    news = News()
    news.heard(beat(b"a", 1))
    news.take(2, 0.0)
    news.heard(beat(b"a", 0))
    news.heard(beat(b"a", 1))
    assert news.deadline() is None


def test_a_new_node_is_told_of_all_and_a_single_one_of_nothing() -> None:
    news = News()
    news.heard(beat(b"a", 1))
    assert news.take(1, 0.0) is None
    assert news.deadline() is None
    news.joined()
    assert names(news.take(2, 1.0)) == [b"a"]


def test_the_dead_are_no_news() -> None:
    news = News()
    news.heard(beat(b"a", 1))
    news.gone(b"a")
    news.joined()
    assert news.take(2, 0.0) is None


def test_draining_is_news() -> None:
    news = News()
    news.heard(beat(b"a", 1))
    news.take(2, 0.0)
    news.heard(beat(b"a", 1, draining=True))
    told = news.take(2, 1.0)
    assert told is not None
    assert told.nodes[0].draining
