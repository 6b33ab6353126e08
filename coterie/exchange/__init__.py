"""Exchange with the rest of the world: models enter and leave as files that others read."""
