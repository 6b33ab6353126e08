"""Reinforcement: a model writes, rewards judge, and what was judged better becomes likelier.

In reading order: `settings`, `prompts` (what is written on), `rollout` (texts are written and
judged), `routes` (the routers' choices of the rollout, repeated in the update), `advantages` and
`losses` (the mathematics), `objective` (what a step minimises), `method` (the run), `watch`
(held-out prompts, alarms).
"""
