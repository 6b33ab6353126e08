"""The loops of constrained verse, by numba, which is imported with the first name from here."""

from coterie.foundation.lazy import lazy_names

__getattr__ = lazy_names(
    __name__,
    dict.fromkeys(("floors", "hopes", "ahead", "look", "running", "fit", "put"), "kernels"),
)
