"""Several processes on one run: torch's engines, put around a decoder that knows nothing of them.

In reading order: `cut` (parameters in pieces), `expert`, `tensor`.
"""
