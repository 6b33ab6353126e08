"""Decoding by kernels of our own: a whole step of the decoder as one flat program.

In reading order: `machine` and `numerics` (what kernels are made of), `kernels` (one file per kind
of operation), `operations` (how they stand in tables), `lower` (one function per part of the model
turns it into operations), `builder`, `interpreter` (threads walking a program), `crew` (the
threads), `program` (a decoder's), `compile` (machine code, kept between processes). It needs numba,
which is imported with the first name taken from here.
"""

from coterie.foundation.lazy import lazy_names

__getattr__ = lazy_names(
    __name__,
    {
        "LoweringError": "builder",
        "Program": "program",
        "compiled_before": "folder",
        "entry_point": "compile",
    },
)
