"""``mray.util.metrics``: counters, gauges and histograms of the user's own.

Covers: Ray's names, arguments and errors. The table is metrics_recorder.py's; a node sums over its
processes and ``mray metrics`` shows the sums (README).

A metric is known by its name: two objects of one name are one metric. Pickled, it is its arguments;
default tags stay behind, as in Ray.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any, Final

from mray.metrics_recorder import Tags, recorder

#: What Prometheus takes.
_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class Metric:
    """What all metrics have in common. Records nothing itself."""

    def __init__(
        self, name: str, description: str = "", tag_keys: tuple[str, ...] | None = None
    ) -> None:
        if len(name) == 0:
            raise ValueError("a metric needs a name, and the empty text is none")
        #: Names that Prometheus does not take are warned of, and their records thrown away.
        self._is_usable = _NAME.fullmatch(name) is not None
        if not self._is_usable:
            warnings.warn(
                f"the metric {name!r} records nothing: its name may have letters, digits, _ and : "
                "only, and no digit first",
                UserWarning,
                stacklevel=3,
            )
        self._name = name
        self._description = description
        self._tag_keys = tag_keys or ()
        self._default_tags: dict[str, str] = {}
        if not isinstance(self._tag_keys, tuple):
            raise TypeError(f"tag_keys is a tuple of names, not {type(tag_keys)}")
        for key in self._tag_keys:
            if not isinstance(key, str):
                raise TypeError(f"tag_keys has names, which are str; {key!r} is {type(key)}")
        if ":" in name:
            warnings.warn(
                f"the metric {name!r}: Ray will no longer take names with a colon",
                FutureWarning,
                stacklevel=3,
            )
        if not isinstance(description, str):
            raise AttributeError(f"the description is a str, not {type(description)}")

    def set_default_tags(self, default_tags: dict[str, str]) -> Metric:
        """Use these tags where a record names no others. Returns the metric itself.

        Raises ValueError for a tag that is not among ``tag_keys``, TypeError for a value that is
        no str.
        """
        for key, value in default_tags.items():
            if key not in self._tag_keys:
                raise ValueError(f"the metric {self._name!r} has no tag {key!r}: {self._tag_keys}")
            _check_value(key, value)
        self._default_tags = default_tags
        return self

    @property
    def info(self) -> dict[str, Any]:
        """Name, description, tag_keys and default_tags."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": self._default_tags,
        }

    def __reduce__(self) -> Any:
        return type(self), (self._name, self._description, self._tag_keys)

    def _tags(self, given: dict[str, str] | None) -> Tags:
        """Those of a record. Raises TypeError and ValueError as the public methods say."""
        tags = self._default_tags
        if given:
            for key, value in given.items():
                _check_value(key, value)
            tags = {**tags, **given}
        missing = [key for key in self._tag_keys if key not in tags]
        if missing:
            raise ValueError(f"the metric {self._name!r} lacks tags: {', '.join(missing)}")
        return tuple(sorted(tags.items())) if len(tags) > 1 else tuple(tags.items())


class Counter(Metric):
    """Counts what only grows. The node sums over its processes, also those that have ended."""

    def __init__(
        self, name: str, description: str = "", tag_keys: tuple[str, ...] | None = None
    ) -> None:
        super().__init__(name, description, tag_keys)
        self._family = recorder.family(name, "counter", description)

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        """Count ``value`` more, under ``tags`` and the default tags.

        Raises ValueError for a value not above 0 and for missing tags; TypeError for a value that
        is no int or float, and a tag's that is no str.
        """
        _check_number(value)
        if value <= 0:
            raise ValueError(f"a counter grows: the value must be above 0, not {value}")
        if self._is_usable:
            recorder.add(self._family, self._tags(tags), value)


class Gauge(Metric):
    """Says how much there is now. The node sums over its living processes."""

    def __init__(
        self, name: str, description: str = "", tag_keys: tuple[str, ...] | None = None
    ) -> None:
        super().__init__(name, description, tag_keys)
        self._family = recorder.family(name, "gauge", description)

    def set(self, value: float | None, tags: dict[str, str] | None = None) -> None:
        """It is ``value`` now, under ``tags`` and the default tags; None says nothing.

        Raises what ``Counter.inc`` does, but for values not above 0.
        """
        if value is None:
            return
        _check_number(value)
        if self._is_usable:
            recorder.set(self._family, self._tags(tags), value)


class Histogram(Metric):
    """Counts values by size, in buckets with these upper ends (``boundaries``, all above 0)."""

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Sequence[float] | None = None,
        tag_keys: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(name, description, tag_keys)
        if boundaries is None or len(boundaries) == 0:
            raise ValueError("a histogram needs boundaries, such as boundaries=[1.0, 2.0]")
        for boundary in boundaries:
            if boundary <= 0:
                raise ValueError(f"boundaries are above 0; of {boundaries}, {boundary} is not")
        self.boundaries = boundaries
        self._family = recorder.family(name, "histogram", description, boundaries)

    def observe(self, value: float, tags: dict[str, str] | None = None) -> None:
        """Count one value, under ``tags`` and the default tags.

        Raises what ``Counter.inc`` does, but for values not above 0.
        """
        _check_number(value)
        if self._is_usable:
            recorder.observe(self._family, self._tags(tags), value)

    @property
    def info(self) -> dict[str, Any]:
        """Name, description, tag_keys, default_tags and boundaries."""
        return {**super().info, "boundaries": self.boundaries}

    def __reduce__(self) -> Any:
        return type(self), (self._name, self._description, self.boundaries, self._tag_keys)


def _check_number(value: object) -> None:
    if not isinstance(value, (int, float)):
        raise TypeError(f"the value must be int or float, not {type(value)}")


def _check_value(key: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"values of tags are str; that of {key!r} is {type(value)}")


__all__ = ["Counter", "Gauge", "Histogram"]
