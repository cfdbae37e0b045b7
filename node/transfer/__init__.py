"""Copies of objects between nodes: pulling, serving, the bulk connection."""
