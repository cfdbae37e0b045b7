"""Client side of a node's shared-memory object store."""
