"""Checkpoints of several processes: any mesh to any other, one process, one file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load

from coterie.checkpoint import find_problem, load_model
from coterie.checkpoint.convert import convert_checkpoint
from coterie.checkpoint.layout import MODEL, stored
from coterie.checkpoint.tensor_file import read_tensors
from coterie.exchange.huggingface.writing import export_folder
from coterie.foundation.errors import CheckpointError

SEED = 31


def laid(folder: Path, world: int, trials: int) -> Path:
    """Let so many processes save over random meshes, one after the other."""
    code = Path(__file__).with_name("meshes.py")
    words = [str(each) for each in (trials, SEED)]
    started = [
        subprocess.Popen([sys.executable, code, folder, str(rank), str(world), *words],
                         env=os.environ | {"OMP_NUM_THREADS": "1"},
                         stderr=subprocess.PIPE, text=True)
        for rank in range(world)
    ]  # fmt: skip
    told = [each.communicate(timeout=300)[1] for each in started]
    assert [each.returncode for each in started] == [0] * world, "\n".join(told)
    return folder


@pytest.fixture(scope="module")
def meshes(tmp_path_factory):
    """Return where two processes saved over a mesh, and over another what they read back."""
    return laid(tmp_path_factory.mktemp("meshes"), world=2, trials=3)


def require_equal(path: Path, folder: Path) -> None:
    """Make sure that a sound checkpoint holds what was meant, bit for bit."""
    assert find_problem(path) is None
    for kind, meant in torch.load(folder / "meant.pt").items():
        found = read_tensors(stored(path, kind))
        assert found.keys() == meant.keys()
        for name, tensor in found.items():
            assert torch.equal(tensor, meant[name]), name
            assert tensor.dtype == meant[name].dtype


def exported(path: Path, out: Path) -> dict[str, bytes]:
    """Return the files of a Hugging Face export."""
    loaded = load_model(path)
    export_folder(loaded.decoder, loaded.own_tokenizer, out)
    return {each.name: each.read_bytes() for each in out.iterdir()}


def follow(folder: Path) -> None:
    """Follow one trial from two meshes to one process, files and other programs."""
    one, two = (folder / name / "step-00000001" for name in ("one", "two"))
    require_equal(one, folder)
    require_equal(two, folder)
    parted = exported(two, folder / "hf-parts")
    assert convert_checkpoint(two)
    assert (two / MODEL).is_file()
    assert not convert_checkpoint(two)
    require_equal(two, folder)
    assert exported(two, folder / "hf-single") == parted
    assert convert_checkpoint(two, 3)
    assert len(list((two / "model").iterdir())) == 3
    require_equal(two, folder)


@pytest.mark.parametrize("number", range(3))
def test_tensors_go_from_mesh_to_mesh_to_one_process_and_stay_as_they_are(meshes, number):
    follow(meshes / f"{number}")


@pytest.mark.distributed
def test_four_processes_reshard_twelve_times(tmp_path):
    laid(tmp_path, world=4, trials=12)
    for number in range(12):
        follow(tmp_path / f"{number}")


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_torch_reads_the_parts_too(meshes):
    path = meshes / "0" / "one" / "step-00000001"
    for kind, meant in torch.load(meshes / "0" / "meant.pt").items():
        found = {name: torch.full_like(tensor, -1) for name, tensor in meant.items()}
        reader = HuggingFaceStorageReader(str(stored(path, kind)))
        load(found, storage_reader=reader, no_dist=True)
        for name, tensor in found.items():
            assert torch.equal(tensor, meant[name]), name


def flip(path: Path) -> str:
    file = sorted((path / "optimizer").iterdir())[-1]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    return f"optimizer/{file.name} does not match its checksum"


def remove(path: Path) -> str:
    file = sorted((path / "model").iterdir())[0]
    file.unlink()
    return f"model/{file.name} is missing"


def sign_anew(path: Path) -> str:
    """Remove a part, and its entry in the manifest."""
    from coterie.checkpoint.manifest import read_manifest, write_manifest

    remove(path)
    manifest = read_manifest(path)
    files = {n: r for n, r in manifest.files.items() if n != "model/part-00001.safetensors"}
    write_manifest(path, manifest.model_copy(update={"files": files}))
    return "do not make up the whole"


@pytest.mark.parametrize("damage", [flip, remove, sign_anew])
def test_damage_to_a_part_is_named(meshes, tmp_path, damage):
    path = shutil.copytree(meshes / "0" / "one" / "step-00000001", tmp_path / "step-00000001")
    expected = damage(path)
    assert expected in (find_problem(path) or "")
    with pytest.raises(CheckpointError, match="is damaged"):
        convert_checkpoint(path)


def test_a_reader_of_the_model_leaves_the_parts_of_moments_unread(meshes, tmp_path):
    path = shutil.copytree(meshes / "0" / "one" / "step-00000001", tmp_path / "step-00000001")
    flip(path)
    assert find_problem(path, moments=False) is None
