"""The node processes."""
if __name__ != "mray.node":
    raise ImportError("this folder is installed as 'mray.node'; run: pip install -e .")
