"""Random search by successive halving: the bad half is stopped, the good half goes on."""

import numpy as np
import ray


@ray.remote(num_cpus=0.25)
class Trial:
    """Fits a polynomial's coefficients by gradient descent at some rate."""

    def __init__(self, data, rate, momentum):
        self.x, self.y = data
        self.rate, self.momentum = rate, momentum
        self.weights, self.speed = np.zeros(3), np.zeros(3)

    def train(self, steps):
        for _ in range(steps):
            gradient = 2 * self.x.T @ (self.x @ self.weights - self.y) / len(self.y)
            self.speed = self.momentum * self.speed - self.rate * gradient
            self.weights = np.clip(self.weights + self.speed, -1e3, 1e3)
        return float(np.mean((self.x @ self.weights - self.y) ** 2))


def main():
    ray.init()
    random = np.random.default_rng(11)
    x = np.vander(random.uniform(-1, 1, 400), 3)
    data = ray.put((x, x @ np.array([1.5, -2.0, 0.7])))
    settings = [(10 ** random.uniform(-3, -0.5), random.uniform(0, 0.9)) for _ in range(8)]
    trials = {n: Trial.remote(data, *setting) for n, setting in enumerate(settings)}
    steps, losses = 20, {}
    while len(trials) > 1:
        losses = dict(
            zip(trials, ray.get([t.train.remote(steps) for t in trials.values()]), strict=True)
        )
        ranked = sorted(losses, key=losses.__getitem__)
        for number in ranked[len(ranked) // 2 :]:
            ray.kill(trials.pop(number))
        steps *= 2
    [best] = trials
    assert losses[best] == min(losses.values())
    assert losses[best] < 0.05
    print(f"best of 8: rate {settings[best][0]:.3f}, loss {losses[best]:.5f}")


if __name__ == "__main__":
    main()
