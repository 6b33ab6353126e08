"""The docs check notices each kind of thing that is not so, says where, and names what is."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_docs.py"
FENCE = "```"


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("check_docs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_docs"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["check_docs"]


LIES = {
    "[a](mising.md)": "no file mising.md",
    "[a](page.md#titel)": "no heading #titel in page.md; did you mean “title”?",
    "`tests/model/test_contrakt.py`": "did you mean “tests/model/test_contract.py”?",
    "`tests/behaviour/test_{mutate,mutale}.py`": "no file tests/behaviour/test_mutale.py",
    "`tests/behaviour/test_check_docs.py::test_lie`": "no test test_lie",
    "`python scripts/mutate.py --chek`": "scripts/mutate.py has no --chek; did you mean “--check”?",
    "`make tset`": "no target tset in the Makefile; did you mean “test”?",
    "`coterie trian quickstart`": "did you mean “train”?",
    "`coterie train --resum latest`": "did you mean --resume?",
    f"{FENCE}\ncoterie train gpt2 train.stepz=3\n{FENCE}": "did you mean “steps”?",
    f"{FENCE}\ncoterie generate latest top_q=3\n{FENCE}": "did you mean “top_p”?",
    "`train.batchsize=3`": "did you mean “batch_size”?",
    "`model.widht`": "did you mean “width”?",
    "`{kind: strided, strid: 4}`": "did you mean “stride”?",
    "`{kind: strode}`": "no kind strode here",
    f"{FENCE}yaml\nmodel: {{norm: {{kind: rsm}}}}\n{FENCE}": "did you mean “rms”?",
    f"{FENCE}python\nfrom coterie.model import Decodr\n{FENCE}": "did you mean “Decoder”?",
    f"{FENCE}python\nfrom coterie.modle import x\n{FENCE}": "no module coterie.modle",
    f"{FENCE}python\nDecoderSettings.model_validate({{'widht': 1}})\n{FENCE}": "mean “width”?",
    "`coterie.batch.TokenBach`": "did you mean “TokenBatch”?",
    "`DecoderSetings`": "did you mean “DecoderSettings”?",
    "`update_balanse(decoder)`": "did you mean “update_balance”?",
    f"{FENCE}\ncoterie/\n  train/  the loop\n{FENCE}": "the map lacks coterie/model/",
}


@pytest.mark.parametrize("lie", LIES)
def test_what_is_not_so_is_told_with_its_place_and_the_nearest_name(check, tmp_path, lie):
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{lie}\n", encoding="utf-8")
    told = list(check.problems(page))
    assert any(LIES[lie] in each for each in told), told
    assert all(each.startswith(f"{page}:") and int(each.split(":")[1]) >= 3 for each in told)


def test_what_is_so_passes(check, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n[here](#title) `scripts/mutate.py` `coterie train gpt2 scale=tiny` "
        "`train.optimizer.learning_rate=1` `{kind: structured, rate: 0.1, size: 8}` `cache.size=4` "
        "`my_lab.norms:Centred` `model.safetensors` `coterie.model.Decoder`\n",
        encoding="utf-8",
    )
    assert list(check.problems(page)) == []
