"""How operations stand in a program's tables."""

HEADER = 3
"""Words before an operation's own: its kernel, its tasks, where it says how often they repeat."""
FIELDS = 24
"""Words that an operation may have of its own."""
WORDS = HEADER + FIELDS
NUMBERS = 2
"""Numbers in float64 that go with one."""
MOST_STEPS, MOST_ENDS = 64, 7
"""Of one call: the most tokens chosen for an entry, and the most tokens that may end its text."""
