"""mray: Ray Core's API over a small pure-Python cluster runtime."""

if __name__ != "mray":
    raise ImportError("this folder is installed as 'mray'; run: pip install -e .")
