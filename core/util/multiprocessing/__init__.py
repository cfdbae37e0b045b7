"""``mray.util.multiprocessing``: the standard library's Pool over actors.

The other two names are the standard library's own, for programs that change one import.
"""

from multiprocessing import JoinableQueue, TimeoutError

from mray.util.multiprocessing.pool import Pool

__all__ = ["JoinableQueue", "Pool", "TimeoutError"]
