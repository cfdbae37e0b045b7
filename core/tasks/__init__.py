"""Submitted work: what it is (task), where it goes (dispatch), calls of actors (actor_calls)."""
