"""Floor 0: settings, errors, events, files and run directories. Knows no torch."""
