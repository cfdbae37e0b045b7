"""ActorPool: few actors for many items, in order or as they come, and by hand."""

import ray
from ray.util import ActorPool


@ray.remote
class Speller:
    def __init__(self):
        self.words = {number: str(number)[::-1] for number in range(100)}

    def spell(self, number):
        return self.words[number]


def main():
    ray.init()
    pool = ActorPool([Speller.remote() for _ in range(3)])
    ordered = list(pool.map(lambda actor, n: actor.spell.remote(n), range(40)))
    assert ordered == [str(n)[::-1] for n in range(40)]

    as_they_come = list(pool.map_unordered(lambda actor, n: actor.spell.remote(n), range(40)))
    assert sorted(as_they_come) == sorted(ordered)

    assert pool.has_free()
    taken_out = pool.pop_idle()
    for number in range(5):
        pool.submit(lambda actor, n: actor.spell.remote(n), number)
    pool.push(taken_out)
    results = []
    while pool.has_next():
        results.append(pool.get_next())
    assert results == list("01234")
    print(f"{len(ordered)} words by 3 actors, three ways")


if __name__ == "__main__":
    main()
