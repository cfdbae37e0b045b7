"""What processes say to each other: the messages and their encoding. See messages.py."""
