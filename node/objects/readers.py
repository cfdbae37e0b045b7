"""Pin requests: those that wait for a writer or for the disk, and the last ones answered.

Owns who waits for what and until when, and the answers given. Does not pin: store.py does.

Why anyone waits: a reader learns of an object from its owner, on another connection than the one
that carries the writer's SealObject, so its PinObjects may come first. It waits a moment instead of
hearing that the object is lost. For an object that comes back from disk it waits as long as that
takes: a restore ends, well or badly.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from mray.machine import InvariantError
from mray.node.objects.effects import AnswerPins

#: The place of an object that is not here.
NOWHERE = (-1, 0)
#: Answers kept per client, so that a repeated request does not pin twice. Few, because one may
#: hold 10,000 places.
_ANSWERS_KEPT = 8


class PinRequest:
    """One PinObjects with parts of its answer missing."""

    __slots__ = ("client", "deadline", "lost", "missing", "object_ids", "places", "rid")

    def __init__(
        self, client: bytes, rid: int, object_ids: tuple[bytes, ...],
        places: list[tuple[int, int]], missing: dict[bytes, None], deadline: float,
    ) -> None:  # fmt: skip
        self.client = client
        self.rid = rid
        self.object_ids = object_ids
        #: The answer so far; NOWHERE for what is missing or not here.
        self.places = places
        #: Unsealed objects, a set in order. Never empty while the request waits.
        self.missing = missing
        self.deadline = deadline
        #: Why objects are not here, where that is known.
        self.lost: dict[bytes, str] = {}

    @property
    def reasons(self) -> tuple[str, ...]:
        """As in AnswerPins."""
        if not self.lost:
            return ()
        return tuple(self.lost.get(object_id, "") for object_id in self.object_ids)


class Readers:
    """The requests of all clients."""

    __slots__ = ("_answers", "_by_object", "_patient", "_requests")

    def __init__(self) -> None:
        #: In order of arrival, which is the order of deadlines too.
        self._requests: OrderedDict[tuple[bytes, int], PinRequest] = OrderedDict()
        #: Those whose time is over and who miss only what is on its way from disk.
        self._patient: dict[tuple[bytes, int], PinRequest] = {}
        #: Who waits for an object. Every entry's request is in one of both and misses the object.
        self._by_object: dict[bytes, list[PinRequest]] = {}
        #: The last answers to each client, by request.
        self._answers: dict[bytes, OrderedDict[int, AnswerPins]] = {}

    @property
    def deadline(self) -> float | None:
        """When the oldest request has waited long enough."""
        first = next(iter(self._requests.values()), None)
        return None if first is None else first.deadline

    def waits(self, client: bytes, rid: int) -> bool:
        """Whether this very request waits already."""
        return (client, rid) in self._requests or (client, rid) in self._patient

    def has(self, object_id: bytes) -> bool:
        """Whether anybody waits for an object."""
        return object_id in self._by_object

    def answered(self, client: bytes, rid: int) -> AnswerPins | None:
        """What this very request was answered with, if that was lately."""
        answers = self._answers.get(client)
        return None if answers is None else answers.get(rid)

    def note_answer(self, answer: AnswerPins) -> None:
        """A request has been answered."""
        answers = self._answers.setdefault(answer.client, OrderedDict())
        answers[answer.rid] = answer
        if len(answers) > _ANSWERS_KEPT:
            answers.popitem(last=False)

    def add(self, request: PinRequest) -> None:
        """Let a request wait for its missing objects."""
        self._requests[request.client, request.rid] = request
        for object_id in request.missing:
            self._by_object.setdefault(object_id, []).append(request)

    def of_object(self, object_id: bytes) -> list[PinRequest]:
        """Take out everyone who waits for an object; it no longer counts as missing for them."""
        requests = self._by_object.pop(object_id, [])
        for request in requests:
            del request.missing[object_id]
            if not request.missing:
                self._remove(request)
        return requests

    def expired(self, now: float, coming: Callable[[bytes], bool]) -> list[PinRequest]:
        """Take out the requests whose deadline has come, but for those who miss only objects that
        are ``coming`` from disk."""
        expired = []
        while self._requests:
            first = next(iter(self._requests.values()))
            if first.deadline > now:
                break
            for object_id in [one for one in first.missing if not coming(one)]:
                self._leave(first, object_id)
                del first.missing[object_id]
            self._remove(first)
            if first.missing:
                self._patient[first.client, first.rid] = first
            else:
                expired.append(first)
        return expired

    def refused(self, object_id: bytes) -> list[PinRequest]:
        """Take out everyone who waits for an object, with all else that they wait for."""
        requests = self._by_object.get(object_id, []).copy()
        for request in requests:
            self._forget(request)
        return requests

    def withdraw(self, client: bytes, object_id: bytes) -> None:
        """A client no longer wants an object that it waits for; a request left empty is dropped."""
        for request in self._by_object.get(object_id, []).copy():
            if request.client == client:
                self._leave(request, object_id)
                del request.missing[object_id]
                if not request.missing:
                    self._remove(request)

    def forget_client(self, client: bytes) -> None:
        """Forget a dead client."""
        for request in [one for one in self._all() if one.client == client]:
            self._forget(request)
        self._answers.pop(client, None)

    def check(self) -> None:
        """Raise InvariantError unless requests and objects point at each other."""
        pointed = [(id, one.rid) for id, ones in self._by_object.items() for one in ones]
        missing = [(id, one.rid) for one in self._all() for id in one.missing]
        if sorted(pointed) != sorted(missing) or not all(self._by_object.values()):
            raise InvariantError(f"readers wait for {missing} and are noted for {pointed}")
        if not all(one.missing for one in self._all()):
            raise InvariantError("a complete request waits")

    def _all(self) -> list[PinRequest]:
        return [*self._requests.values(), *self._patient.values()]

    def _remove(self, request: PinRequest) -> None:
        key = (request.client, request.rid)
        if self._requests.pop(key, None) is None:
            del self._patient[key]

    def _forget(self, request: PinRequest) -> None:
        self._remove(request)
        for object_id in request.missing:
            self._leave(request, object_id)

    def _leave(self, request: PinRequest, object_id: bytes) -> None:
        others = [one for one in self._by_object[object_id] if one is not request]
        if others:
            self._by_object[object_id] = others
        else:
            del self._by_object[object_id]
