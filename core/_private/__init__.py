"""Names that programs written for Ray import from ``ray._private``; nothing else lives here."""
