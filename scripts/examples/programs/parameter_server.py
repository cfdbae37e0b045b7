"""An asynchronous parameter server: workers fit a line, each at its own pace."""

import numpy as np
import ray

TRUE = np.array([2.0, -3.0, 0.5])


@ray.remote
class Server:
    def __init__(self, size):
        self.weights = np.zeros(size)
        self.updates = 0

    def push(self, gradient, rate):
        self.weights -= rate * gradient
        self.updates += 1
        return self.weights

    def pull(self):
        return self.weights, self.updates


@ray.remote
def work(server, seed, rounds):
    random = np.random.default_rng(seed)
    weights, _ = ray.get(server.pull.remote())
    for _ in range(rounds):
        samples = random.normal(size=(64, 3))
        gradient = 2 * samples.T @ (samples @ (weights - TRUE)) / len(samples)
        weights = ray.get(server.push.remote(gradient, 0.05))
    return seed


def main():
    ray.init()
    server = Server.remote(len(TRUE))
    assert sorted(ray.get([work.remote(server, seed, 40) for seed in range(3)])) == [0, 1, 2]
    weights, updates = ray.get(server.pull.remote())
    assert updates == 120
    np.testing.assert_allclose(weights, TRUE, atol=0.05)
    print(f"{updates} updates, error {np.abs(weights - TRUE).max():.4f}")


if __name__ == "__main__":
    main()
