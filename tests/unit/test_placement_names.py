"""Names of what bundles hold, and conditions on labels."""

from __future__ import annotations

import pytest

from mray.placement import (
    group_in,
    in_bundle,
    is_in_group,
    matches,
    offered,
    parse_selector,
    plain,
    within,
)
from mray.resources import fits, to_fixed

GROUP = b"g" * 18


@pytest.mark.parametrize("index", [-1, 0, 12])
def test_needs_in_a_group_tell_the_group_and_what_was_asked(index: int) -> None:
    needs = within(to_fixed({"CPU": 1}), GROUP, index)
    assert group_in(needs) == (GROUP, index)
    assert plain(needs) == to_fixed({"CPU": 1})
    assert all(is_in_group(name) for name in needs)


def test_needs_outside_tell_no_group() -> None:
    assert group_in(to_fixed({"CPU": 1})) is None
    assert plain(to_fixed({"CPU": 1})) == to_fixed({"CPU": 1})


def test_needs_of_any_bundle_fit_into_what_one_offers() -> None:
    bundle = to_fixed({"CPU": 2})
    need = within(to_fixed({"CPU": 2}), GROUP, -1)
    assert fits(in_bundle(need, GROUP, 3), offered(bundle, GROUP, 3))
    assert not fits(in_bundle(need, GROUP, 2), offered(bundle, GROUP, 3))


@pytest.mark.parametrize(
    ("text", "labels", "met"),
    [
        ("a", {"k": "a"}, True),
        ("a", {}, False),
        ("!a", {}, True),
        ("!a", {"k": "a"}, False),
        ("in(a, b)", {"k": "b"}, True),
        ("in(a,b)", {"k": "c"}, False),
        ("!in(a,b)", {"k": "c"}, True),
        ("!in(a,b)", {"k": "b"}, False),
    ],
)
def test_selectors(text: str, labels: dict[str, str], met: bool) -> None:
    assert matches(parse_selector({"k": text}), labels) is met


@pytest.mark.parametrize("text", ["", "!", "in(a", "in(a,,b)"])
def test_selectors_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="label_selector"):
        parse_selector({"k": text})


def test_presence_of_labels() -> None:
    assert matches({"k": ("exists", [])}, {"k": "a"})
    assert not matches({"k": ("exists", [])}, {})
    assert matches({"k": ("!exists", [])}, {})
