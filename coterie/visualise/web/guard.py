"""Who may talk to the server: this page alone, under its own name, with the token.

A browser on the same machine visits other pages too. They may send requests here, or point a name
of theirs at this address (DNS rebinding); so a request must name a host that the server goes by,
must not come from another origin, and must carry the token that only the printed address holds.
"""

import hmac
from collections.abc import Collection, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

MOST_BYTES = 1 << 20  # of a request's body
_TOO_MUCH = (413, f"A request may have {MOST_BYTES:,} bytes.")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY, "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer", "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin", "cross-origin-opener-policy": "same-origin",
}  # fmt: skip
Scope = MutableMapping[str, Any]


class _RefusedError(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Guard:
    """An ASGI application around another, which sees only requests that may come.

    Args:
        hosts: names with ports that the server goes by, such as `localhost:8765`.
        token: what each request must carry: as a cookie, as `Authorization: Bearer`, or in the
            address `/?token=…`, which is answered with the cookie.
    """

    def __init__(self, app: Any, hosts: Collection[str], token: str) -> None:
        self._app, self._hosts, self._token = app, frozenset(hosts), token
        self._cookie = "coterie-" + min(self._hosts).rpartition(":")[2]  # cookies know no ports

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no other protocol is spoken: the server closes the connection
        taken, started = 0, False

        async def limited() -> MutableMapping[str, Any]:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_BYTES:  # a body in chunks does not say how long it is
                raise _RefusedError(*_TOO_MUCH)
            return message

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if taken > MOST_BYTES:  # whoever read the body may have caught the refusal
                    message["status"] = _TOO_MUCH[0]
                own = {name.encode(): value.encode() for name, value in _HEADERS.items()}
                there = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(
                    (name, value) for name, value in own.items() if name not in there
                )]  # fmt: skip
            await send(message)

        try:
            entry = self._check(scope)
            if entry is not None:
                await _reply(answer, 303, "", entry)
                return
            await self._app(scope, limited, answer)
        except _RefusedError as refused:
            if not started:
                await _reply(answer, refused.status, refused.reason, [])

    def _check(self, scope: Scope) -> list[tuple[bytes, bytes]] | None:
        """Return the headers of an answer that lets a newcomer in; None: they are in.

        Raises:
            _RefusedError: the request may not come.
        """
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key = name.decode("latin-1").lower()
            if key in headers and key in ("host", "origin", "content-length"):
                raise _RefusedError(400, f"{key} is named twice.")
            headers[key] = value.decode("latin-1")
        if headers.get("host", "").lower() not in self._hosts:
            raise _RefusedError(421, "This server does not go by that name.")
        if _number(headers.get("content-length", "0")) > MOST_BYTES:
            raise _RefusedError(*_TOO_MUCH)
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"))
        shown = dict(query).get("token")
        enters = scope["method"] == "GET" and scope["path"] == "/" and shown is not None
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        if origin is not None and origin.lower() not in {f"http://{host}" for host in self._hosts}:
            raise _RefusedError(403, "Requests of other origins are refused.")
        if site not in ("same-origin", "none") and not enters:
            raise _RefusedError(403, "Requests of other sites are refused.")
        if enters and self._fits(shown or ""):
            further = urlencode([(key, value) for key, value in query if key != "token"])
            cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
            return [
                (b"location", f"/?{further}".rstrip("?").encode()), (b"set-cookie", cookie.encode())
            ]  # fmt: skip
        if not any(map(self._fits, self._carried(headers))):
            raise _RefusedError(401, "Open the address that the terminal shows: it has the token.")
        return None

    def _carried(self, headers: dict[str, str]) -> list[str]:
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            cookie = None
        return [bearer if kind.lower() == "bearer" else "", cookie.value if cookie else ""]

    def _fits(self, token: str) -> bool:
        return hmac.compare_digest(token.encode("utf-8", "replace"), self._token.encode())


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 15:
        raise _RefusedError(400, "The length of the body is no number.")
    return int(text)


async def _reply(send: Any, status: int, text: str, headers: list[tuple[bytes, bytes]]) -> None:
    plain = (b"content-type", b"text/plain; charset=utf-8")
    start = {"type": "http.response.start", "status": status, "headers": [plain, *headers]}
    await send(start)
    await send({"type": "http.response.body", "body": text.encode()})
