"""Objects come from put and from remote functions; a reference holds no data and nothing changes
what is stored."""

import ray

number = 1
by_put = ray.put(number)


@ray.remote
def produce():
    return [10, 20]


by_task = produce.remote()
assert isinstance(by_put, ray.ObjectRef)
assert isinstance(by_task, ray.ObjectRef)
assert ray.get(by_put) == 1

mine = ray.get(by_task)
mine.append(30)
assert ray.get(by_task) == [10, 20], "the stored object cannot be changed"

source = {"k": "before"}
stored = ray.put(source)
source["k"] = "after"
assert ray.get(stored) == {"k": "before"}
print("objects stay as they were stored")
