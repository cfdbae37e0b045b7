"""Count words in files: each task reads its own, the counts are merged in pairs."""

import collections
import pathlib
import tempfile

import ray

TEXTS = ["the cat sat on the mat", "a dog and a cat", "the end of the story"]


@ray.remote
def count(path):
    return collections.Counter(pathlib.Path(path).read_text().split())


@ray.remote
def merge(left, right):
    return left + right


def main():
    ray.init()
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number in range(24):
            path = pathlib.Path(folder, f"part{number}.txt")
            path.write_text("\n".join([TEXTS[number % 3]] * (number + 1)))
            paths.append(str(path))
        counts = [count.remote(path) for path in paths]
        while len(counts) > 1:
            counts = [
                merge.remote(*pair) if len(pair) == 2 else pair[0]
                for pair in (counts[i : i + 2] for i in range(0, len(counts), 2))
            ]
        total = ray.get(counts[0])
    expected = collections.Counter()
    for number in range(24):
        for word in TEXTS[number % 3].split():
            expected[word] += number + 1
    assert total == expected
    print(f"{total.total():,} words; most often: {total.most_common(1)[0][0]!r}")


if __name__ == "__main__":
    main()
