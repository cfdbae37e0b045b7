"""The command line."""

if __name__ != "mray.cli":
    raise ImportError("this folder is installed as 'mray.cli'; run: pip install -e .")
