"""What every foreign format shares: from a decoder to tensors under other names, and back.

Reading order: `tensor_map` (which foreign tensors hold which of ours), `values` (reading foreign
settings), `canonical` (settings with every default resolved), `match` (the family that expresses a
model exactly), `reparametrise` (the tensors under that family's settings), `loading` and `writing`.
The formats import this package and never each other.
"""
