"""The threads of torch on cores that other processes use as well; see `foundation.cores`."""

import functools

import torch

from coterie.foundation.cores import SharedCores


@functools.cache
def shared_cores() -> SharedCores:
    """Return what watches the cores for the whole process, for the number of threads is its."""
    return SharedCores(torch.get_num_threads, torch.set_num_threads)
