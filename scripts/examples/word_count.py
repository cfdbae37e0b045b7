"""Count words by map and reduce, over the source files of Python's standard library."""

import collections
import pathlib
import re
import sysconfig

import ray

MAPPER_COUNT = 8
REDUCER_COUNT = 4
FILE_COUNT = 160


@ray.remote(num_returns=REDUCER_COUNT)
def count_words(paths):
    """Count the words of some files, parted by the reducer that will add them up."""
    parts = [collections.Counter() for _ in range(REDUCER_COUNT)]
    for path in paths:
        text = pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
        for word in re.findall(r"[A-Za-z]{3,}", text):
            parts[ord(word[0].lower()) % REDUCER_COUNT][word.lower()] += 1
    return parts


@ray.remote
def add_up(*counts):
    """Add the counts of one part; the counts arrive as values, not as refs."""
    total = collections.Counter()
    for count in counts:
        total.update(count)
    return total


def main():
    ray.init(ignore_reinit_error=True)
    library = pathlib.Path(sysconfig.get_path("stdlib"))
    files = sorted(str(path) for path in library.glob("*.py"))[:FILE_COUNT]

    # Every mapper gives one ref a reducer; the counts never come here.
    mapped = [count_words.remote(files[i::MAPPER_COUNT]) for i in range(MAPPER_COUNT)]
    reduced = [add_up.remote(*parts) for parts in zip(*mapped, strict=True)]

    words = collections.Counter()
    for part in ray.get(reduced):
        assert not words.keys() & part.keys(), "a word belongs to one part only"
        words.update(part)

    assert words["import"] > len(files)
    print(f"{words.total():,} words, {len(words):,} different ones, in {len(files)} files")
    for word, count in words.most_common(5):
        print(f"{count:>8,}  {word}")


if __name__ == "__main__":
    main()
