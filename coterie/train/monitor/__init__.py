"""Monitoring: what happened becomes events, and events go to whoever listens.

`publish` writes the run's own record and hands events on, `report` turns steps into events,
`trackers` send them to other tools. None of it can change training.
"""
