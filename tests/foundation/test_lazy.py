"""A lazy package gives every name it lists, and imports nothing before."""

import subprocess
import sys

import pytest

import coterie.train


def test_every_listed_name_is_there():
    for name in coterie.train.__all__:
        assert getattr(coterie.train, name).__name__ == name


def test_an_unknown_name_is_missing_as_in_any_module():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        coterie.train.nothing  # noqa: B018


def test_a_module_can_be_imported_from_the_package():
    code = (
        "import sys; from coterie.train import settings; assert settings.RunSettings;"
        "from coterie.train import RunSettings; assert RunSettings is settings.RunSettings;"
        "assert 'coterie.train.loop' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
