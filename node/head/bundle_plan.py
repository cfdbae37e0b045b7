"""Which nodes the bundles of a placement group go to: a pure choice over what nodes have.

PACK: as few nodes as possible; SPREAD: as many; the STRICT ones: exactly one, or each on its own.
The biggest bundles are placed first, for they are the hardest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mray.node.head.placement import Room
from mray.placement import matches, parse_selector
from mray.resources import Resources, fits, give_back, take

#: Bundle -> its node.
Places = dict[int, bytes]


def spread_over(
    bundles: Mapping[int, Resources],
    strategy: str,
    rooms: Sequence[Room],
    *,
    taken: Sequence[bytes] = (),
    prefer: bytes = b"",
    selectors: Sequence[Mapping[str, str]] = (),
    idle: bool = False,
) -> Places | None:
    """A node for each bundle, None if there is no way.

    ``taken``: where the group's other bundles are. ``idle``: count what nodes have in all, not
    what is free: whether it could ever be. ``rooms`` in the order of preference.
    """
    left = {room.node_id: dict(room.total if idle else room.available) for room in rooms}
    labels = {room.node_id: room.labels for room in rooms}
    order = sorted(bundles, key=lambda index: (-sum(bundles[index].values()), index))

    def allows(node: bytes, index: int) -> bool:
        if selectors and not matches(parse_selector(selectors[index]), labels[node]):
            return False
        return fits(bundles[index], left[node])

    if strategy == "STRICT_PACK":
        nodes = [taken[0]] if taken else sorted(left, key=lambda node: node != prefer)
        whole: Resources = {}
        for bundle in bundles.values():
            give_back(bundle, whole)
        for node in nodes:
            if node in left and fits(whole, left[node]) and all(allows(node, i) for i in order):
                return dict.fromkeys(bundles, node)
        return None
    if strategy == "PACK" and not taken:
        together = spread_over(
            bundles, "STRICT_PACK", rooms, prefer=prefer, selectors=selectors, idle=idle
        )
        if together is not None:
            return together
    places: Places = {}
    used = list(taken)
    for index in order:
        fitting = [node for node in left if allows(node, index)]
        if strategy == "STRICT_SPREAD":
            fitting = [node for node in fitting if node not in used]
        if not fitting:
            return None
        if strategy == "PACK":
            node = max(fitting, key=used.count)  # The first of equals.
        else:
            node = min(fitting, key=used.count)
        take(bundles[index], left[node])
        places[index] = node
        used.append(node)
    return dict(sorted(places.items()))
