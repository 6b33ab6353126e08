"""Which passes a decoder gets: as asked, or where kernels serve and pay."""

import gc
import weakref

import pytest
import torch

from coterie.foundation.errors import UserError
from coterie.generate import native
from coterie.generate.passes import CompiledPass, EagerPass, NativePass, choice, passes_for
from coterie.model import DecoderSettings


class Stub(EagerPass):
    reason = None


def build(**changes):
    values = {"layers": 1, "width": 16, "context": 16, "vocab_size": 11} | changes
    return DecoderSettings.model_validate(values).build(torch.Generator().manual_seed(0))


def kinds(passes):
    return [type(each) for each in passes]


def test_torch_alone_where_it_is_asked_for():
    assert kinds(passes_for(build(), "torch", 1 << 40)) == [EagerPass]


def test_kernels_are_loaded_for_long_texts_and_compiled_for_longer_ones(monkeypatch):
    monkeypatch.setattr(choice, "NativePass", lambda decoder, notify: Stub(decoder))
    for before, enough in ((True, 900), (False, 1700)):
        monkeypatch.setattr(native, "compiled_before", lambda before=before: before)
        assert kinds(passes_for(build(), "auto", enough // 2)) == [EagerPass]
        assert kinds(passes_for(build(), "auto", enough)) == [Stub, EagerPass]


def test_without_numba_torch_decodes_and_native_is_an_error(monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    assert kinds(passes_for(build(), "auto", 1 << 40)) == [EagerPass]
    monkeypatch.setattr(native, "Program", lambda *given: (_ for _ in ()).throw(ImportError()))
    with pytest.raises(UserError, match=r"coterie\[fast\]"):
        passes_for(build(), "native")


def test_native_says_what_has_no_kernel():
    with pytest.raises(UserError, match="bfloat16"):
        passes_for(build().to(torch.bfloat16), "native")


def test_a_pass_is_made_once_and_goes_with_its_decoder():
    decoder = build()
    first, gone = passes_for(decoder, "native"), weakref.ref(decoder)
    assert kinds(first) == [NativePass, EagerPass]
    assert passes_for(decoder, "auto")[0] is first[0]
    compiled = passes_for(decoder, "compiled")
    assert kinds(compiled) == [CompiledPass, EagerPass]
    assert passes_for(decoder, "compiled")[0] is compiled[0]
    del decoder, first, compiled
    gc.collect()
    assert gone() is None
