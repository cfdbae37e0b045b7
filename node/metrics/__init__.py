"""Figures of a node: its own, and sums of what its processes reported; the page that shows them."""
