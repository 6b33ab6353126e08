"""The front door in Python, and what the command line's verbs share with it.

`import coterie` opens it: `coterie.load`, `coterie.train`, `coterie.prepare`, `coterie.runs`.
Nothing is imported here, so that each of them costs no more than it needs.
"""
