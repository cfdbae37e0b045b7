"""``ray.autoscaler.sdk``: asks for a bigger cluster, where something could make it bigger.

mray starts no machines. As on a Ray cluster without an autoscaler a request changes nothing, and
mray says so once. Libraries (Daft) make such requests on every cluster.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

__all__ = ["request_resources"]

log = logging.getLogger("mray")


class _Notice:
    """Said once a process."""

    given = False


def request_resources(
    num_cpus: int | None = None,
    bundles: Sequence[Mapping[str, float]] | None = None,
    bundle_label_selectors: Sequence[Mapping[str, str]] | None = None,
) -> None:
    """Ask for a cluster that has room for so many CPUs and these bundles; changes nothing here.

    Raises TypeError for what is no request, ValueError for other numbers of bundles and selectors.
    """
    if num_cpus is not None and (isinstance(num_cpus, bool) or not isinstance(num_cpus, int)):
        raise TypeError(f"num_cpus must be an int or None, not {num_cpus!r}")
    for bundle in bundles or ():
        if not isinstance(bundle, Mapping):
            raise TypeError(f"bundles must be a list of dicts, not of {bundle!r}")
    if bundle_label_selectors is not None and len(bundle_label_selectors) != len(bundles or ()):
        raise ValueError(
            f"{len(bundle_label_selectors)} bundle_label_selectors for {len(bundles or ())} bundles"
        )
    if (num_cpus or bundles) and not _Notice.given:
        _Notice.given = True
        log.info("request_resources() changes nothing: mray starts no nodes by itself")
