"""Beam search: the likeliest whole texts instead of one that is drawn."""

from coterie.generate.beams.settings import BeamSettings
