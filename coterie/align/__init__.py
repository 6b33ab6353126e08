"""Alignment: from a model that continues text to one that does what is wanted.

An alignment run is a training run with another method (`coterie.train.method`): it begins with the
weights of a run and reads rows of conversations or preferences, or what the policy itself writes.

In reading order: `settings` (what all methods share), `rows` and `encoding` (files to tokens),
`packing` (tokens to batches), `lora`, `method` (weights of a run, held-out rows), `sft`,
`preferences` (DPO and KTO), `methods` (all of them).
"""
