"""Tells an ObjectRef, while it is being pickled, who is pickling it.

Owns one thread-local, nothing else: it is read in ``ObjectRef.__reduce__``, the hottest place of a
value full of references, so it is a bare attribute and no function. What to do about each case is
the reference's business.

====================  ==================================================================
``refs`` is a list    mray serializes a value: append yourself, the owner tracks you
``by_cloudpickle``    user code called ``mray.cloudpickle``: out of band, to be pinned
neither               user code called plain ``pickle``: out of band, untracked
====================  ==================================================================

``refs`` wins: a ``__reduce__`` that pickles a part by itself still travels inside mray's value.
"""

from __future__ import annotations

import threading
from typing import Any


class Collector(threading.local):
    """Per thread: what kind of pickling is under way."""

    #: References met so far by mray's own serialization; None outside of it.
    refs: list[Any] | None = None
    #: True while mray.cloudpickle dumps for user code.
    by_cloudpickle: bool = False


collector = Collector()
