"""Who keeps which object alive: see references.py."""
