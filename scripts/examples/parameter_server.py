"""Fit a linear model: workers send gradients to an actor that holds the parameters."""

import numpy as np
import ray

WORKER_COUNT = 3
STEP_COUNT = 60
ROWS_PER_WORKER = 20_000
TRUTH = np.array([2.0, -1.0, 0.5, 3.0])


@ray.remote
class ParameterServer:
    """Holds the parameters; each step moves them against the mean gradient."""

    def __init__(self, size, rate):
        self.parameters = np.zeros(size)
        self.rate = rate

    def step(self, *gradients):
        self.parameters -= self.rate * np.mean(gradients, axis=0)
        return self.parameters

    def read(self):
        return self.parameters


@ray.remote
def make_rows(seed):
    """Random rows and what the true model says of them, with noise."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(ROWS_PER_WORKER, len(TRUTH)))
    return rows, rows @ TRUTH + random.normal(scale=0.1, size=ROWS_PER_WORKER)


@ray.remote
def gradient(parameters, data):
    """The gradient of the squared error on one worker's rows, read in place from the store."""
    rows, targets = data
    return 2 * rows.T @ (rows @ parameters - targets) / len(rows)


def main():
    ray.init(ignore_reinit_error=True)
    data = [make_rows.remote(seed) for seed in range(WORKER_COUNT)]
    server = ParameterServer.remote(len(TRUTH), rate=0.1)

    parameters = server.read.remote()
    for _ in range(STEP_COUNT):
        # Only refs pass through here: parameters and gradients go from process to process.
        parameters = server.step.remote(*[gradient.remote(parameters, rows) for rows in data])

    fitted = ray.get(parameters)
    error = float(np.abs(fitted - TRUTH).max())
    assert error < 0.01, fitted
    print(f"fitted {np.round(fitted, 3)} in {STEP_COUNT} steps; largest error {error:.4f}")


if __name__ == "__main__":
    main()
