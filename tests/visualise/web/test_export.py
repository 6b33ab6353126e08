"""An export is one file that holds all and may load nothing."""

import base64
import json
import re
import zlib
from dataclasses import replace

from coterie.visualise.web.export import MODULES, export_page
from coterie.visualise.web.pack import packed
from coterie.visualise.web.server import _PAGE


def test_the_trace_is_inside_and_nothing_is_loaded(trace):
    page = export_page([packed(trace, "a text")])
    data = re.search(r'id="packs">(.*?)</script>', page)[1]
    (pack,) = json.loads(data)
    records = zlib.decompress(base64.b64decode(pack["tokens"]["records"]))
    assert records == trace.records.tobytes()
    assert "/page/" not in page
    assert not re.search(r"^import ", page, re.MULTILINE)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_text_from_outside_cannot_end_the_script(trace):
    evil = "</script><script>alert(1)</script><!--"
    texts = [evil, *trace.texts[1:]]
    page = export_page([packed(replace(trace, texts=texts, words={0: evil}), evil)])
    assert page.count("</script>") == 2
    assert "alert(1)</script>" not in page
    assert "<!--" not in page.split("</title>")[1].replace("<!doctype", "")


def test_every_module_is_in_the_export():
    modules = {each.name for each in _PAGE.iterdir() if each.name.endswith(".js")}
    assert set(MODULES) == modules
    for place, name in enumerate(MODULES):  # each comes after those that it imports
        imported = re.findall(r'from "\./([^"]*)"', _PAGE.joinpath(name).read_text())
        assert set(imported) <= set(MODULES[:place])


def test_no_module_makes_markup_of_text():
    for name in MODULES:
        script = _PAGE.joinpath(name).read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in script
