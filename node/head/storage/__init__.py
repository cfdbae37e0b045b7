"""Where the head keeps what has to outlive it: one interface, three places."""
