"""What the disk refuses is told in words, whoever meets it first."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from coterie.foundation.disk import explain_disk_errors
from coterie.foundation.errors import UserError


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_called_full(number):
    with (
        pytest.raises(UserError, match="disk is full: could not write it") as caught,
        explain_disk_errors("it"),
    ):
        raise OSError(number, os.strerror(number))
    assert "Nothing half-written" in caught.value.message
    with pytest.raises(UserError) as caught, explain_disk_errors("it", whole=False):
        raise OSError(number, os.strerror(number))
    assert "half-written" not in caught.value.message


def test_a_full_disk_that_numpy_meets_is_called_full():
    with (
        pytest.raises(UserError, match="disk is full"),
        explain_disk_errors("it"),
        open("/dev/full", "wb", buffering=0) as file,
    ):
        np.zeros(4096).tofile(file)


def test_what_is_read_is_not_blamed_on_what_is_written(tmp_path):
    with (
        pytest.raises(FileNotFoundError),
        explain_disk_errors("store", within=tmp_path / "store"),
    ):
        (tmp_path / "input").read_text()
    with (
        pytest.raises(UserError, match="Cannot write store"),
        explain_disk_errors("store", within=tmp_path / "store"),
    ):
        (tmp_path / "store" / "shard").read_text()


def test_other_failures_are_not_explained():
    with pytest.raises(OSError, match="unheard of"), explain_disk_errors("it"):
        raise OSError(errno.EDOM, "unheard of")
