"""Files and modules that travel: working_dir and py_modules."""

import pathlib
import tempfile

import ray


@ray.remote
def read_file(name):
    return pathlib.Path(name).read_text()


@ray.remote
def price(amount):
    import taxes

    return taxes.with_tax(amount)


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder, "work")
        (work / "data").mkdir(parents=True)
        (work / "data" / "greeting.txt").write_text("from afar")
        (work / "big.bin").write_bytes(b"\0" * 1000)
        package = pathlib.Path(folder, "taxes")
        package.mkdir()
        (package / "__init__.py").write_text("def with_tax(x):\n    return round(x * 1.19, 2)\n")
        ray.init(
            runtime_env={
                "working_dir": str(work),
                "py_modules": [str(package)],
                "excludes": ["*.bin"],
            }
        )
        assert ray.get(read_file.remote("data/greeting.txt")) == "from afar"
        assert ray.get(price.remote(100)) == 119.0
        try:
            ray.get(read_file.remote("big.bin"))
            raise AssertionError("big.bin should have stayed at home")
        except FileNotFoundError:
            pass
    print("a file and a module travelled, one file stayed")


if __name__ == "__main__":
    main()
