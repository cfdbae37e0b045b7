"""Estimate pi by throwing darts, with an actor that hears how far everybody is."""

import random

import ray

TASKS, THROWS, STEP = 8, 40_000, 10_000


@ray.remote
class Progress:
    def __init__(self):
        self.thrown = {}

    def report(self, task, thrown):
        self.thrown[task] = thrown

    def share(self):
        return sum(self.thrown.values()) / (TASKS * THROWS)


@ray.remote
def throw(task, progress):
    dice, hits = random.Random(task), 0
    for number in range(1, THROWS + 1):
        if dice.random() ** 2 + dice.random() ** 2 <= 1:
            hits += 1
        if number % STEP == 0:
            progress.report.remote(task, number)
    # Calls of one caller keep their order: this one comes last.
    ray.get(progress.report.remote(task, THROWS))
    return hits


def main():
    ray.init()
    progress = Progress.remote()
    hits = sum(ray.get([throw.remote(task, progress) for task in range(TASKS)]))
    assert ray.get(progress.share.remote()) == 1.0
    estimate = 4 * hits / (TASKS * THROWS)
    assert abs(estimate - 3.14159) < 0.02
    print(f"pi is about {estimate:.4f}")


if __name__ == "__main__":
    main()
