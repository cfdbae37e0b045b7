"""The memory monitor of a node: whom to end when memory runs out, when, and what is told of it."""
