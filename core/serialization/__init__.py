"""Values to bytes and back.

Start at pickler.py (pack, serialize, deserialize). envelope.py is the byte layout, dumper.py picks
the pickler, context.py tells an ObjectRef who pickles it, custom.py holds users' serializers,
failures.py carries exceptions between processes (dual.py, tracebacks.py), inspection.py says why
a value cannot be pickled (anatomy.py).
"""
