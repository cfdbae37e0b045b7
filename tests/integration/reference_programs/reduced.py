"""A class that says how it is pickled: __reduce__ names what makes it again."""

import os
import sqlite3
import tempfile

import ray


class Connection:
    def __init__(self, path):
        self.path = path
        self.handle = sqlite3.connect(path)

    def __reduce__(self):
        return Connection, (self.path,)


@ray.remote
def count_rows(connection):
    return connection.handle.execute("select count(*) from t").fetchone()[0]


with tempfile.TemporaryDirectory() as folder:
    original = Connection(os.path.join(folder, "db"))
    original.handle.execute("create table t (x)")
    original.handle.executemany("insert into t values (?)", [(n,) for n in range(7)])
    original.handle.commit()
    copied = ray.get(ray.put(original))
    assert copied.handle is not original.handle
    print(copied.handle)
    assert ray.get(count_rows.remote(original)) == 7
    original.handle.close()
    copied.handle.close()
