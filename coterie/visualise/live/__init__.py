"""Views in the terminal that move and answer to keys, with textual: a text, and a training run."""
