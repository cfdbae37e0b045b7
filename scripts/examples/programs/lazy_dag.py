"""A graph of references: submitted at once, run as inputs come, some results never fetched."""

import operator

import ray


@ray.remote
def apply(function, *arguments):
    return function(*arguments)


def build(graph):
    """References for all nodes of ``{name: (function, inputs)}``; inputs are names or values."""
    refs = {}

    def ref_of(name):
        if name not in refs:
            function, *inputs = graph[name]
            refs[name] = apply.remote(
                function, *(ref_of(i) if isinstance(i, str) else i for i in inputs)
            )
        return refs[name]

    for name in graph:
        ref_of(name)
    return refs


def main():
    ray.init()
    graph = {
        "result": (operator.add, "product", "difference"),
        "product": (operator.mul, "a", "b"),
        "difference": (operator.sub, "b", "a"),
        "a": (int, 6),
        "b": (int, 7),
        "broken": (operator.truediv, "a", 0),
        "after broken": (operator.add, "broken", 1),
    }
    refs = build(graph)
    assert ray.get(refs["result"]) == 43
    try:
        ray.get(refs["after broken"])
        raise AssertionError("it cannot be divided")
    except ZeroDivisionError:
        pass
    chain = apply.remote(int, 0)
    for _ in range(300):
        chain = apply.remote(operator.add, chain, 1)
    assert ray.get(chain) == 300
    print("42 + 1 = 43; a chain of 300; what is broken stays broken")


if __name__ == "__main__":
    main()
