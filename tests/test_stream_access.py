from __future__ import annotations

from http import HTTPStatus

import pytest
from multidict import CIMultiDict

from alphapulse.config import StreamSettings
from alphapulse.stream.access import Access, Refused, offered, selected

Pairs = list[tuple[str, str]]


def headers(*pairs: tuple[str, str]) -> CIMultiDict[str]:
    return CIMultiDict(pairs)


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8765", "LOCALHOST", "127.0.0.1:8765", "127.8.8.8", "[::1]:8765"),
        *("stream.internal", "Stream.Internal:80", "data.example"),
    ],
)
def test_hosts_that_lead_here(host: str) -> None:
    access = Access(StreamSettings(host="data.example", allowed_hosts=("stream.internal",)))
    access.check_host(headers(("host", host)))


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("Host", "")],
        [("Host", "example.org")],
        [("Host", "localhost.example.org")],
        [("Host", "127.0.0.1.example.org")],
        [("Host", "user@example.org")],
        [("Host", "localhost:99999")],
        [("Host", "[::1")],
        [("Host", "10.0.0.1")],
        [("Host", "localhost"), ("Host", "example.org")],
    ],
)
def test_hosts_that_do_not(pairs: Pairs) -> None:
    with pytest.raises(Refused) as error:
        Access(StreamSettings()).check_host(headers(*pairs))
    assert error.value.status is HTTPStatus.FORBIDDEN


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("Origin", "http://localhost")],
        [("Origin", "https://localhost:3000")],
        [("Origin", "http://127.0.0.1:8080")],
        [("Origin", "http://[::1]:8080")],
        [("Origin", "https://charts.example.org")],
    ],
)
def test_origins_that_may_connect(pairs: Pairs) -> None:
    access = Access(StreamSettings(origins=("https://charts.example.org",)))
    access.check_origin(headers(*pairs))


@pytest.mark.parametrize(
    "pairs",
    [
        [("Origin", "null")],
        [("Origin", "")],
        [("Origin", "https://example.org")],
        [("Origin", "http://charts.example.org")],
        [("Origin", "https://charts.example.org:444")],
        [("Origin", "https://localhost.example.org")],
        [("Origin", "http://localhost:port")],
        [("Origin", "http://localhost"), ("Origin", "https://example.org")],
    ],
)
def test_origins_that_may_not(pairs: Pairs) -> None:
    access = Access(StreamSettings(origins=("https://charts.example.org",)))
    with pytest.raises(Refused) as error:
        access.check_origin(headers(*pairs))
    assert error.value.status is HTTPStatus.FORBIDDEN


@pytest.mark.parametrize(
    "pairs",
    [
        [("Authorization", "Bearer s3cret")],
        [("authorization", "bearer  s3cret")],
        [("Sec-WebSocket-Protocol", "bearer.s3cret")],
        [("Sec-WebSocket-Protocol", "alphapulse, bearer.s3cret")],
        [("Sec-WebSocket-Protocol", "alphapulse"), ("Sec-WebSocket-Protocol", "bearer.s3cret")],
    ],
)
def test_tokens_that_are_right(pairs: Pairs) -> None:
    Access(StreamSettings(token="s3cret")).check_token(headers(*pairs))


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer s3cre")],
        [("Authorization", "Basic s3cret")],
        [("Authorization", "Bearer \udcff")],
        [("Sec-WebSocket-Protocol", "s3cret")],
        [("Sec-WebSocket-Protocol", "bearer.S3CRET")],
        [("Sec-WebSocket-Protocol", "bearer.")],
    ],
)
def test_tokens_that_are_wrong(pairs: Pairs) -> None:
    with pytest.raises(Refused) as error:
        Access(StreamSettings(token="s3cret")).check_token(headers(*pairs))
    assert error.value.status is HTTPStatus.UNAUTHORIZED
    Access(StreamSettings()).check_token(headers(*pairs))


def test_one_of_the_offered_subprotocols_is_chosen() -> None:
    name = "Sec-WebSocket-Protocol"
    assert selected(headers()) == {}
    assert selected(headers((name, "mqtt"))) == {}
    assert selected(headers((name, "bearer.x"))) == {name: "bearer.x"}
    assert selected(headers((name, "bearer.x, alphapulse"))) == {name: "alphapulse"}
    assert offered(headers((name, " a ,, b"))) == ["a", "b"]
