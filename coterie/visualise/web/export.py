"""One HTML file with traces inside, which shows them as the live page does, without a network."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from coterie.foundation.files import write_text_atomic
from coterie.foundation.printable import printable

_PAGE = files("coterie.visualise.web").joinpath("page")
# The modules in an order in which each comes after those that it imports.
MODULES = (
    "trace.js", "figures.js", "dom.js", "ribbon.js", "flow.js", "panels.js", "heat.js", "atlas.js",
    "touch.js", "training.js", "app.js",
)  # fmt: skip
_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)


def export_page(packs: Sequence[dict[str, Any]]) -> str:
    """Return the page with packed traces inside (`coterie.visualise.web.pack.packed`).

    Its policy names the digests of its own style and script and lets it load nothing else.
    """
    style = _asset("style.css")
    # Names at the top of the modules differ, so that one after the other they are one module.
    script = "".join(_EXPORT.sub("", _IMPORT.sub("", _asset(name))) for name in MODULES)
    data = json.dumps(packs, separators=(",", ":")).replace("<", "\\u003c")
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    title = escape(printable(str(packs[0]["title"]) if packs else "", keep=""))
    page = _asset("index.html")
    for old, new in (
        ("<!-- policy -->", f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        ("<title>Coterie</title>", f"<title>{title} – Coterie</title>"),
        ('<link rel="stylesheet" href="/page/style.css">', f"<style>{style}</style>"),
        ('<script type="module" src="/page/app.js"></script>',
         f'<script type="application/json" id="packs">{data}</script>'
         f'<script type="module">{script}</script>'),
    ):  # fmt: skip
        assert page.count(old) == 1, old
        page = page.replace(old, new)
    return page


def write_export(path: Path, packs: Sequence[dict[str, Any]]) -> None:
    """Write the page to a file, whole or not at all."""
    write_text_atomic(path, export_page(packs))


def _asset(name: str) -> str:
    return _PAGE.joinpath(name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
