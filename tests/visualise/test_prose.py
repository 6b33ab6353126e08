"""What a model writes is shown safely, tags as typography, mistakes as mistakes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.visualise.prose import has_tags, settings, written


def visible(html: str) -> str:
    """Return the text of HTML that has only spans, and every other sign escaped."""
    text = re.sub(r"</?span(?: class=\"\w+\")?>", "", html)
    assert not re.search(r"[<>\"']|&(?!(?:lt|gt|amp|quot|#x27);)", text)
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#x27;", "'")):
        text = text.replace(entity, character)
    return text.replace("&amp;", "&")


def test_a_well_formed_tag_becomes_typography():
    html = written("<SPEAKER>HAMLET</SPEAKER>\nTo be")
    assert html.startswith('<span class="speaker"><span class="tag">&lt;SPEAKER&gt;</span>HAMLET')
    assert "stray" not in html
    assert has_tags("<SPEAKER>HAMLET</SPEAKER>")


@pytest.mark.parametrize(
    "text", ["<SPEAKER>HAM", "HAM</SPEAKER>", "<STAGE>a<SPEAKER>b</STAGE>c</SPEAKER>"]
)
def test_a_tag_without_partner_is_marked(text):
    html = written(text)
    assert "stray" in html
    assert visible(html) == text


def test_scripts_are_text():
    html = written("<script>alert(1)</script><img src=x onerror=alert(2)>&lt;")
    assert "<script" not in html
    assert "<img" not in html
    assert "&amp;lt;" in html


def test_special_tokens_are_set_apart():
    assert '<span class="stop">&lt;|endoftext|&gt;</span>' in written("end<|endoftext|>")


PIECES = [*"<>/&\"' ab\n", "<A>", "</A>", "<B>", "</B>", "<|e|>"]


@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_spans_close_and_nothing_is_lost(text):
    html = written(text)
    assert html.count("<span") == html.count("</span>")
    assert visible(html) == text
    depth = 0
    for opening in re.findall(r"<(/?)span", html):
        depth += -1 if opening else 1
        assert depth >= 0


def test_settings_are_coloured_and_escaped():
    html = settings('seed: 7  # <b>lucky</b>\n- name: "<i>"\n  on: true\nurl: http://x#y')
    assert '<span class="key">seed:</span> <span class="number">7</span>' in html
    assert '<span class="comment"> # &lt;b&gt;lucky&lt;/b&gt;</span>' in html
    assert '<span class="string">&quot;&lt;i&gt;&quot;</span>' in html
    assert '<span class="number">true</span>' in html
    assert "<b>" not in html
    assert html.count("\n") == 3
    assert settings("plain: a <i> b").endswith(" a &lt;i&gt; b")


@given(st.text())
def test_no_setting_is_lost(text):
    assert visible(settings(text)).count("<") == text.count("<")
