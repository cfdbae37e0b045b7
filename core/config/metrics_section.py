"""The settings of metrics: how often processes report, and the page that Prometheus reads.

No `from __future__ import annotations` here: registry.py reads the annotations as objects.
"""

from typing import Annotated, Final

from msgspec import Meta

from mray.config.key import Key, Section

_HOUR_MS: Final = 3_600_000

# fmt: off


class Metrics(Section, frozen=True):
    """What is measured: figures of the node, and those of `mray.util.metrics`."""

    metrics_report_interval_ms: Annotated[int, Meta(ge=10, le=_HOUR_MS), Key(
        "After how long at most a process tells its node what mray.util.metrics recorded.",
        "Up to 200 series take 100 ms. Turn up for fewer messages; turn down for fresher figures.",
        scope="process", unit="ms", ray=("RAY_metrics_report_interval_ms",),
    )] = 2000
    metrics_export_port: Annotated[int, Meta(ge=0, le=65535), Key(
        "The TCP port where each node serves http://HOST:PORT/metrics; 0 serves none.",
        "Set it to have Prometheus read a node; `mray metrics` needs no port.",
        scope="node",
    )] = 0
    metrics_export_host: Annotated[str, Meta(min_length=1, max_length=255), Key(
        "The address that metrics_export_port is bound to; anybody who reaches it may read.",
        "Set it to 0.0.0.0 where Prometheus runs on another machine.",
        scope="node",
    )] = "127.0.0.1"


# fmt: on
