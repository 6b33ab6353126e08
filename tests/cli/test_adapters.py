"""`coterie align adapters` and `merge`, by their words."""

import json

from coterie.cli.app import run
from coterie.foundation.runs import runs_root

ROW = '{"prompt": "so says", "completion": "he"}\n'


def test_adapters_leave_a_run_and_make_another_that_is_it(tiny_run, places, capsys):
    rows, file = places / "rows.jsonl", places / "a.safetensors"
    rows.write_text(ROW * 12)
    words = ["align", "sft", "tiny", str(rows), "--lora", "2", "--name", "tuned"]
    assert run([*words, "align.template=plain", "train.steps=1", "train.epochs=null"]) == 0
    capsys.readouterr()
    assert run(["align", "adapters", "tuned", "--out", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert 0 < told["parameters"] * 4 < file.stat().st_size
    assert run(["align", "merge", "tiny", str(file), "--name", "merged"]) == 0
    assert (runs_root() / "merged" / "origin.json").is_file()
    capsys.readouterr()
    texts = []
    for name in ("tuned", "merged"):
        assert run(["generate", name, "It", "temperature=0"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert run(["align", "adapters", "tiny", "--out", "x"]) == 2
    assert "--lora 8" in capsys.readouterr().err
    assert run(["align", "merge", "tiny"]) == 2
    assert "A run and a file of adapters are wanted" in capsys.readouterr().err
    assert run(["align", "adapters", "tuned", "--out", str(file)]) == 2
    assert "exists" in capsys.readouterr().err
