"""How many leases of one class its owner has asked of which node.

Machine, a part of dispatch.py. The owner's own node is asked first and says what to ask elsewhere
(``moved``); another node serves soon or gives the demand back (``refused``), and then the own node
has it again, with the names of those that had no room. A class whose place is given (a node, the
bundles of a placement group) asks its ``targets`` only, each for all that it wants, because any of
them may come first.

A demand is absolute: it replaces the former one. Nodes need its order of magnitude only, so it is
said again when it has changed by a factor of two, or to or from nothing.
"""

from __future__ import annotations

from mray.machine import InvariantError

#: Stands for the owner's own node.
HOME = b""
#: A node without room is not asked again for so long, doubled each time.
_SHUN_FIRST_S = 0.2
_SHUN_LAST_S = 5.0


class Asked:
    """See the module. Methods that change what is asked return ``(node, count)`` to be told."""

    __slots__ = ("avoided", "away", "home", "shunned", "stale", "staying", "targets")

    def __init__(self) -> None:
        self.home = 0
        #: By node, none of them 0.
        self.away: dict[bytes, int] = {}
        #: Nodes that wait with us until they can serve, rather than give the demand back.
        self.staying: set[bytes] = set()
        #: Nodes that had no room: until when they are left alone, and for how long next time.
        self.shunned: dict[bytes, tuple[float, float]] = {}
        #: Those of them that the own node was last told not to name.
        self.avoided: list[bytes] = []
        #: Where alone workers may be; None for anywhere.
        self.targets: list[bytes] | None = None
        #: The own node has to be told even if the number has hardly changed.
        self.stale = False

    @property
    def total(self) -> int:
        """What all nodes together are believed to owe us."""
        return self.home + sum(self.away.values())

    def revise(self, want: int) -> list[tuple[bytes, int]]:
        """``want`` more leases are wanted from now on."""
        if self.targets is not None:
            return self._revise_targets(self.targets, want)
        if _close(want, self.total) and not self.stale:
            return []
        self.stale = False
        said = []
        rest = want
        for node, count in list(self.away.items()):
            keep = min(count, rest)
            rest -= keep
            if keep != count:
                self._set(node, keep)
                said.append((node, keep))
        if rest != self.home or rest:
            self.home = rest
            said.append((HOME, rest))
        return said

    def _revise_targets(self, targets: list[bytes], want: int) -> list[tuple[bytes, int]]:
        said = []
        for node in {HOME: None, **self.away, **dict.fromkeys(targets)}:
            wanted = want if node in targets else 0
            if not _close(wanted, self.of(node)):
                self._set(node, wanted)
                said.append((node, wanted))
        return said

    def of(self, node: bytes) -> int:
        """What is asked of a node."""
        return self.home if node == HOME else self.away.get(node, 0)

    def _set(self, node: bytes, count: int) -> None:
        if node == HOME:
            self.home = count
        elif count:
            self.away[node] = count
        else:
            self.away.pop(node, None)
            self.staying.discard(node)

    def moved(self, node: bytes, count: int, stay: bool) -> list[tuple[bytes, int]]:
        """The own node sends some of the demand to another one."""
        count = min(count, self.home)
        if count <= 0 or self.targets is not None:
            return []
        self.home -= count
        self._set(node, self.of(node) + count)
        if stay:
            self.staying.add(node)
        return [(node, self.of(node))]

    def granted(self, node: bytes) -> None:
        """A node lends a worker."""
        self._set(node, max(0, self.of(node) - 1))
        self.shunned.pop(node, None)

    def refused(self, node: bytes, now: float) -> None:
        """A node has no room: what was asked of it goes back to the own node."""
        self._set(node, 0)
        gap_s = self.shunned.get(node, (0.0, _SHUN_FIRST_S))[1]
        self.shunned[node] = (now + gap_s, min(gap_s * 2, _SHUN_LAST_S))
        self.stale = True

    def gone(self, node: bytes) -> bool:
        """A node is dead; whether anything was asked of it."""
        was_asked = node in self.away
        self._set(node, 0)
        self.shunned.pop(node, None)
        self.stale = self.stale or was_asked
        return was_asked

    def clear(self) -> None:
        """No node owes us anything: it refused, for good."""
        self.home = 0
        self.away.clear()
        self.staying.clear()

    def avoid(self, now: float) -> list[bytes]:
        """Nodes that the own node should not name now. It is told so."""
        self.avoided = [node for node, (until, _) in self.shunned.items() if until > now]
        return self.avoided

    def relents_at(self) -> float | None:
        """When the own node has to be told that it may name one of them again: what nobody had
        room for waits there, and it does not ask."""
        if not self.home:
            return None
        return min((self.shunned[n][0] for n in self.avoided if n in self.shunned), default=None)

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        if self.home < 0 or any(count <= 0 for count in self.away.values()):
            raise InvariantError(f"a demand of {self.home} at home, {self.away} elsewhere")
        if HOME in self.away or not self.staying <= self.away.keys():
            raise InvariantError(f"nodes that stay and are not asked: {self.staying}")


def _close(want: int, have: int) -> bool:
    return (want == 0) == (have == 0) and have <= want * 2 and want <= have * 2
