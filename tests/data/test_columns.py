"""What of a row is the text: fields in objects, templates, conversations."""

from __future__ import annotations

import json

import pyarrow
import pytest
from pyarrow import parquet

from coterie.data import Sources
from coterie.data.documents import Message
from coterie.data.reading import Reading
from coterie.foundation.errors import DataError

ROWS = [
    {"title": "One", "meta": {"text": "first", "n": 1}, "n": 7},
    {"title": "Two", "meta": {"text": "second", "n": 2}, "n": 0.5},
]
CHATS = {
    "messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}],
    "conversations": [{"from": "user", "value": "Who?"}, {"from": "assistant", "value": "I."}],
}
CHAT = "user:\nWho?\n\nassistant:\nI."


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table(path, rows):
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def arrow(path, rows):
    content = pyarrow.Table.from_pylist(rows)
    opened = pyarrow.ipc.new_stream if path.stem == "stream" else pyarrow.ipc.new_file
    with pyarrow.OSFile(str(path), "wb") as file, opened(file, content.schema) as out:
        out.write_table(content)
    return path


@pytest.fixture(params=["a.jsonl", "a.parquet", "stream.arrow", "file.arrow"])
def write(request, tmp_path):
    writers = {"jsonl": jsonl, "parquet": table, "arrow": arrow}
    return lambda rows: writers[request.param.partition(".")[2]](tmp_path / request.param, rows)


def texts(path, **how):
    return [document.text for document in Sources([path], **how)]


def test_a_field_of_objects_and_a_template_are_read(write):
    path = write(ROWS)
    assert texts(path, column="meta.text") == ["first", "second"]
    template = "{title}: {meta.text}\\n{meta.n}"
    assert texts(path, template=template) == ["One: first\n1", "Two: second\n2"]
    assert texts(path) == ["One", "Two"]
    with pytest.raises(DataError, match=r"no (column|field) “(meta\.)?body”"):
        texts(path, column="body")
    with pytest.raises(DataError, match=r"no (column|field) “body”"):
        texts(path, template="{title} {body}")
    with pytest.raises(DataError, match=r"holds an object, not text|holds struct"):
        texts(path, column="meta")


def test_a_dot_in_the_name_of_a_column_is_believed(write):
    assert texts(write([{"a.b": "x", "a": {"b": "y"}}]), column="a.b") == ["x"]


@pytest.mark.parametrize("name", CHATS)
def test_conversations_are_recognised_and_kept(write, name):
    sources = Sources([write([{"id": "1", name: CHATS[name]}])])
    (document,) = sources
    assert document.text == CHAT
    assert document.messages == (Message("user", "Who?"), Message("assistant", "I."))
    assert "conversations, written out from" in sources.report.notes[0]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"instruction": "Add.", "input": "1", "output": "2"}, "user:\nAdd.\n\n1\n\nassistant:\n2"),
        ({"instruction": "Hi", "input": "", "output": "Ho"}, "user:\nHi\n\nassistant:\nHo"),
        ({"prompt": "Hi", "completion": "Ho"}, "user:\nHi\n\nassistant:\nHo"),
        ({"question": "Hi", "answer": "Ho"}, "user:\nHi\n\nassistant:\nHo"),
        ({"question": "Hi", "answer": "Ho", "text": "this"}, "this"),
    ],
)  # fmt: skip
def test_instructions_are_conversations_of_two(write, row, text):
    assert texts(write([row])) == [text]


def test_a_broken_conversation_is_a_bad_row(tmp_path):
    good = {"messages": CHATS["messages"]}
    for bad in ([{"role": "user"}], ["hi"], "hi", None, [{"role": 1, "content": "x"}]):
        path = jsonl(tmp_path / "a.jsonl", [good, {"messages": bad}])
        with pytest.raises(DataError, match=r"a\.jsonl:2: .*messages"):
            list(Sources([path]))
        assert texts(path, on_error="skip") == [CHAT]


def test_csv_has_templates_too(tmp_path):
    (tmp_path / "a.csv").write_text("title,body\nOne,first\nTwo,second\n")
    assert texts(tmp_path / "a.csv", template="{title}: {body}") == ["One: first", "Two: second"]


@pytest.mark.parametrize("template", ["plain", "{", "{}", "{a:>9}", "{a!r}", ""])
def test_a_template_that_is_none_is_refused(template):
    with pytest.raises(DataError, match="template"):
        Reading(template=template)
    with pytest.raises(DataError, match="leave out --column"):
        Reading(column="a", template="{a}")
