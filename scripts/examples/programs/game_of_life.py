"""Conway's game on actors: each has some rows and asks its neighbours for their edges."""

import numpy as np
import ray

SIZE, STRIPES, STEPS = 48, 3, 12


def step(cells):
    """One generation of the inner rows; the columns wrap around."""
    neighbours = sum(
        np.roll(np.roll(cells, dy, 0), dx, 1)
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
        if (dx, dy) != (0, 0)
    )
    return ((neighbours == 3) | ((cells == 1) & (neighbours == 2))).astype(np.int8)


@ray.remote(num_cpus=0.5)
class Stripe:
    def __init__(self, cells):
        self.cells = cells

    def edges(self):
        return self.cells[0].copy(), self.cells[-1].copy()

    def advance(self, above, below):
        self.cells = step(np.vstack([above[1], self.cells, below[0]]))[1:-1]

    def read(self):
        return self.cells


def main():
    ray.init()
    board = (np.random.default_rng(2).random((SIZE, SIZE)) < 0.35).astype(np.int8)
    stripes = [Stripe.remote(part) for part in np.array_split(board, STRIPES)]
    for _ in range(STEPS):
        # Calls of one caller keep their order: nobody moves before its edges are read.
        edges = [stripe.edges.remote() for stripe in stripes]
        for number, stripe in enumerate(stripes):
            stripe.advance.remote(edges[number - 1], edges[(number + 1) % STRIPES])
    result = np.vstack(ray.get([stripe.read.remote() for stripe in stripes]))
    for _ in range(STEPS):
        board = step(board)
    np.testing.assert_array_equal(result, board)
    print(f"{int(result.sum())} cells live after {STEPS} steps")


if __name__ == "__main__":
    main()
