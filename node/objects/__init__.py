"""The shared-memory object store of one node, daemon side: machines that decide, one arena file."""
