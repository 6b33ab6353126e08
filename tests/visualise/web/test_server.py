"""The server answers its own page alone, and says of a text what its trace says."""

import base64
import json
import time

import numpy as np
import pytest
from starlette.testclient import TestClient

from coterie.foundation.errors import UserError
from coterie.visualise.web.runs import Board
from coterie.visualise.web.server import make_app, serve
from coterie.visualise.web.studio import Ask, Start, Studio

HOST = "127.0.0.1:8765"
TOKEN = "a-secret"


def client(studio, token=TOKEN, **options):
    app = make_app(studio, Board(list), [HOST, "localhost:8765"], TOKEN)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return TestClient(app, base_url=f"http://{HOST}", headers=headers, **options)


@pytest.fixture
def shown(trace):
    studio = Studio()
    studio.show(trace, "a text")
    return studio


def events(answer):
    """Return the (kind, value) pairs of a stream of server-sent events."""
    found = []
    for block in answer.text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_a_text_comes_as_its_trace_is(shown, trace):
    (kind, opening), (_, part), (last, ending) = events(client(shown).get("/api/texts/1/events"))
    assert (kind, last) == ("opening", "ending")
    assert opening["size"] == trace.header.record_type().itemsize
    bytes_ = base64.b64decode(part["records"])
    assert bytes_ == trace.records.tobytes()
    assert part["texts"] == trace.texts
    assert ending == {"ending": "length", "problem": None}
    field = opening["fields"]["weights"]
    first = np.frombuffer(bytes_, field["type"], 2, field["offset"])
    np.testing.assert_array_equal(first, trace.records["weights"][0, 0])
    # Who lost the line asks for what came after.
    again = client(shown).get("/api/texts/1/events", headers={"last-event-id": "1"})
    assert [kind for kind, _ in events(again)] == ["ending"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example:8765"}, 421),  # a name of theirs that was pointed here
        ({"host": "127.0.0.1:9999"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": f"https://{HOST}"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": ""}, 401),
        ({"authorization": "Basic a-secret"}, 401),
        ({"content-length": "1e9"}, 400),
        ({"content-length": "2000000"}, 413),
        ({"origin": f"http://{HOST}", "sec-fetch-site": "same-origin"}, 200),
        ({"host": "LOCALHOST:8765"}, 200),
    ],
)
def test_who_may_not_come_is_refused(shown, headers, status):
    assert client(shown).get("/api/state", headers=headers).status_code == status


def test_without_its_token_nothing_is_told(shown):
    stranger = client(shown, token=None)
    for path in ("/", "/page/app.js", "/api/state", "/api/texts/1/events", "/?token=wrong"):
        answer = stranger.get(path, follow_redirects=False)
        assert answer.status_code == 401
        assert "rose" not in answer.text
    assert stranger.post("/api/texts", json={"prompt": "x"}).status_code == 401


def test_the_printed_address_lets_in_and_keeps_its_token_to_itself(shown):
    newcomer = client(shown, token=None)
    entry = newcomer.get(f"/?token={TOKEN}&view=experts", follow_redirects=False)
    assert (entry.status_code, entry.headers["location"]) == (303, "/?view=experts")
    cookie = entry.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    page = newcomer.get("/")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer"
    assert TOKEN not in page.text


@pytest.mark.parametrize(
    "path",
    ["/page/../server.py", "/page/..%2fserver.py", "/page/%2e%2e/%2e%2e/server.py",
     "/page//etc/passwd", "/page/..\\server.py", "/page/app.js%00", "/etc/passwd"],
)  # fmt: skip
def test_no_path_reaches_the_disk(shown, path):
    assert client(shown).get(path).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "x" * 200_001}, {"prompt": "x", "masked": ["0:1"] * 257},
        {"drawing": {"max_tokens": 20_001}}, {"drawing": {"temperature": -1}}, {"prompt": 5},
        {"drawing": {"grammar": "/etc/passwd"}}, {"unknown": 1}, {"masked": ["0:1; rm"]},
        {"masked": ["9" * 20 + ":1"]}, {"after": 99}, {"masked": ["0:77"]},
    ],
)  # fmt: skip
def test_what_is_too_much_or_no_text_is_refused(author, body):
    answer = client(Studio(author)).post("/api/texts", json=body)
    assert answer.status_code == 422
    assert answer.json()


def test_an_oversized_body_in_chunks_is_refused(author):
    chunks = iter([b'{"prompt": "'] + [b"x" * 65_536] * 20)
    headers = {"content-type": "application/json"}
    answer = client(Studio(author)).post("/api/texts", content=chunks, headers=headers)
    assert answer.status_code == 413


def test_a_text_is_written_and_goes_on_with_a_hand(author, trace):
    studio = Studio(author)
    server = client(studio)
    first = server.post("/api/texts", json={"prompt": "".join(trace.texts[:40])}).json()["id"]
    assert [kind for kind, _ in events(server.get(f"/api/texts/{first}/events"))][-1] == "ending"
    own = studio.find(first).trace()
    np.testing.assert_array_equal(own.records["token"], trace.records["token"])

    def again(**body):
        made = server.post("/api/texts", json={"after": first, **body}).json()["id"]
        server.get(f"/api/texts/{made}/events")
        return studio.find(made).trace().records

    masked = again(masked=["1:2"])
    assert len(masked) == len(own.records)
    assert not (masked[:-1]["experts"][:, 1] == 2).any()
    np.testing.assert_array_equal(masked["token"][:40], own.records["token"][:40])
    later = again(masked=["1:2"], upto=50)  # from the reading of the 50th token on
    np.testing.assert_array_equal(later["token"][:50], own.records["token"][:50])
    np.testing.assert_array_equal(later["experts"][:49], own.records["experts"][:49])
    assert not (later[49:-1]["experts"][:, 1] == 2).any()
    np.testing.assert_array_equal(again(upto=50)["token"], own.records["token"])  # no hand


def test_nothing_is_written_where_no_model_is(shown):
    answer = client(shown).post("/api/texts", json={"prompt": "x"})
    assert (answer.status_code, "no model" in answer.json()["problem"]) == (422, True)
    assert client(shown).post("/api/effect", json={"text": 1, "masked": ["0:1"]}).status_code == 422


def test_a_text_that_fails_says_so_and_the_next_is_written(author):
    told = []
    studio = Studio(author, told.append)
    server = client(studio)

    class Broken:
        header, finish_reason = author.write(Start("a"), Ask(), {}, {}).header, None

        def __iter__(self):
            raise ZeroDivisionError("by design")

    write, author.write = author.write, lambda *given: Broken()
    first = server.post("/api/texts", json={"prompt": "a"}).json()["id"]
    author.write = write
    second = server.post("/api/texts", json={"prompt": "a"}).json()["id"]
    assert "by design" in events(server.get(f"/api/texts/{first}/events"))[-1][1]["problem"]
    assert events(server.get(f"/api/texts/{second}/events"))[-1][1]["ending"] == "length"
    assert len(told) == 1


def test_a_text_is_stopped(author):
    studio = Studio(author)
    server = client(studio)
    asked = {"prompt": "a", "drawing": {"max_tokens": 20_000}}
    number = server.post("/api/texts", json=asked).json()["id"]
    while not studio.find(number).parts:
        time.sleep(0.01)
    after = server.post("/api/texts", json={"after": number, "masked": ["1:2"]}).json()["id"]
    assert not studio.find(number).done  # the next is taken in while one is written
    server.post(f"/api/texts/{number}/stop")
    assert events(server.get(f"/api/texts/{number}/events"))[-1][1]["ending"] == "stopped"
    assert events(server.get(f"/api/texts/{after}/events"))[-1][1]["ending"] == "length"


def test_an_address_that_is_all_addresses_is_refused(shown):
    with pytest.raises(UserError, match="every address"):
        serve(shown, Board(), host="0.0.0.0", port=0, tell=print)
