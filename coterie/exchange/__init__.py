"""Import and export: models in the file formats of other programs."""
