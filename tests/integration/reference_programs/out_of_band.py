"""References pickled by user code: lost with pickle, pinned with cloudpickle, or refused."""

import pickle
import time

import ray
import ray.exceptions
from ray._private.internal_api import memory_summary

ray.init()


@ray.remote
def by_pickle():
    import pickle

    return pickle.dumps(ray.put(1))


@ray.remote
def by_cloudpickle():
    from ray import cloudpickle

    ref = ray.put(1)
    return ref.hex(), cloudpickle.dumps(ref)


lost = ray.get(by_pickle.remote())
began_at = time.monotonic()
try:
    ray.get(pickle.loads(lost), timeout=5)
except ray.exceptions.GetTimeoutError:
    print(f"vanished, known after {'no time' if time.monotonic() - began_at < 2.5 else 'a while'}")

pinned, _ = ray.get(by_cloudpickle.options().remote())
summary = memory_summary()
print("pinned and listed" if pinned in summary else f"{pinned} is not in\n{summary}")

try:
    ray.get(
        by_cloudpickle.options(
            runtime_env={"env_vars": {"RAY_allow_out_of_band_object_ref_serialization": "0"}}
        ).remote()
    )
except Exception as error:
    print("refused:", type(error).__name__, "RAY_allow_out_of_band" in str(error))
