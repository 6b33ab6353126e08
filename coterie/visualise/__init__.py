"""Pictures of a run: report page, plot files, live terminal. Reads events; imports no torch."""
