"""A reference given directly is replaced by its value; one inside a list stays a reference. This
holds for functions, for constructors of actors and for their methods."""

import ray


@ray.remote
def show(a, b, c):
    print("direct:", a, b, c)


@ray.remote
def show_and_get(refs):
    print("types:", *(type(ref).__name__ for ref in refs))
    print("values:", ray.get(refs))


@ray.remote
class Witness:
    def __init__(self, arg):
        self.made_with = type(arg).__name__, arg if isinstance(arg, int) else ray.get(arg)

    def first(self):
        return self.made_with

    def method(self, arg):
        return type(arg).__name__, arg if isinstance(arg, int) else ray.get(arg)


a, b, c = ray.put(1), ray.put(2), ray.put(3)
ray.get(show.remote(1, 2, 3))
ray.get(show.remote(a, b, c))
ray.get(show.remote(a, c=c, b=2))
ray.get(show_and_get.remote([a, b, c]))

ref = ray.put(2)
by_value, by_reference = Witness.remote(ref), Witness.remote([ref])
assert ray.get(by_value.first.remote()) == ("int", 2)
assert ray.get(by_reference.first.remote()) == ("list", [2])
assert ray.get(by_value.method.remote(ref)) == ("int", 2)
assert ray.get(by_value.method.remote([ref])) == ("list", [2])
print("arguments as expected")
