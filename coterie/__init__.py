"""Coterie: from raw text to a trained, measured and served sparse mixture of experts.

The package itself imports nothing, so that `coterie --help` stays instant. Import the room you
need: `coterie.model`, `coterie.train`, `coterie.generate`, ... The README holds the map.
"""

__version__ = "0.1.0"
