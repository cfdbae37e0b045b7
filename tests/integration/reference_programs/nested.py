"""An object inside another lives until the outer one goes."""

import gc

import ray

inner = ray.put(b"inside" * 100_000)
outer = ray.put([inner])
outermost = ray.put({"box": outer})
del inner, outer
gc.collect()

(found,) = ray.get(ray.get(outermost)["box"])
assert ray.get(found) == b"inside" * 100_000


@ray.remote
def open_box(box):
    (inner,) = ray.get(box["box"])
    return len(ray.get(inner))


assert ray.get(open_box.remote(outermost)) == 600_000
del found
gc.collect()
assert ray.get(open_box.remote(outermost)) == 600_000
print("the inner object lives with the outer one")
