"""Where webhooks may go: what is not public is not reached, whatever the URL, the name or the server says."""

import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import InvalidParams
from jobs.webhooks.guard import Guard, Refused
from jobs.webhooks.post import Post
from tests.tls import Authority

LOCAL = ("127.0.0.0/8",)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "https://127.0.0.1:8460/api/v1/jobs",
        "https://localhost/",
        "https://a.localhost/",
        "https://127.1/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://0.0.0.0/",
        "https://10.1.2.3/",
        "https://172.16.0.1/",
        "https://192.168.1.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://100.64.0.1/",
        "https://224.0.0.1/",
        "https://255.255.255.255/",
        "https://[::1]/",
        "https://[::]/",
        "https://[fe80::1]/",
        "https://[fd00::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:a00:1]/",
        "https://[2002:7f00:1::]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[64:ff9b:1::a00:1]/",
        "https://[::127.0.0.1]/",
        "https://[::ffff:0:127.0.0.1]/",
        "https://[fec0::1]/",
        "https://[5f00::1]/",
    ],
)
def test_an_address_that_is_not_public_is_refused(url: str) -> None:
    with pytest.raises(InvalidParams, match="not a public address; the setting webhook_networks"):
        Guard().check(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://example.com/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("https://", "https://"),
        ("example.com/hook", "https://"),
        ("https://user:secret@example.com/", "user and password"),
        ("https://example.com:99999/", "Port out of range"),
        ("https://exa mple.com/", "no spaces"),
        ("https://example.com/\r\nX: y", "printable"),
        ("https://ex\u00e4mple.com/", "ASCII"),
        ("https://example.com/" + "x" * 2048, "2,048"),
        ("http://93.184.215.14/", "https alone"),
    ],
)
def test_what_can_never_be_a_webhook_is_refused_and_told_why(url: str, why: str) -> None:
    with pytest.raises(InvalidParams, match=why):
        Guard().check(url)


def test_names_and_public_addresses_pass() -> None:
    for url in ("https://example.com/hook?a=1", "https://93.184.215.14:8443/", "https://[2606:4700::1111]/"):
        Guard().check(url)


def test_networks_that_are_named_may_be_reached_by_http_too() -> None:
    guard = Guard(["10.0.0.0/8", "fd00::/8"])
    for url in ("http://10.0.0.1/", "https://10.0.0.1/", "http://[fd00::1]/", "http://[::ffff:10.0.0.1]/"):
        guard.check(url)
    with pytest.raises(InvalidParams):
        guard.check("http://127.0.0.1/")


def _names(**found: list[str]) -> Callable[..., list[tuple[Any, ...]]]:
    """A resolver whose answers are used up one after the other."""

    def resolve(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        address = found[host].pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in address.split()]

    return resolve


def test_a_name_is_judged_by_all_of_its_addresses() -> None:
    for addresses in ("127.0.0.1", "93.184.215.14 127.0.0.1", "10.0.0.1 93.184.215.14"):
        with pytest.raises(Refused, match="not a public address"):
            Guard(resolve=_names(evil=[addresses])).place("https://evil/")


def test_a_name_that_changes_its_mind_is_asked_once_and_what_was_judged_is_connected_to(receive: Any) -> None:
    receiver = receive()
    resolve = _names(hook=["127.0.0.1", "10.0.0.1"])
    answer = Post(Guard(LOCAL, resolve))(f"http://hook:{receiver.port}/a?b=c", {}, b"{}")
    assert (answer.status, answer.error) == (204, None)
    assert receiver.heard[0].path == "/a?b=c"
    assert receiver.heard[0].headers["host"] == f"hook:{receiver.port}"


def test_a_redirect_is_not_followed(receive: Any) -> None:
    target = receive()
    receiver = receive(307, headers={"Location": target.url})
    answer = Post(Guard(LOCAL))(receiver.url, {}, b"{}")
    assert (answer.status, answer.error) == (307, "answered 307; redirects are not followed")
    assert target.heard == []


def test_a_server_that_drips_is_cut_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        answer = Post(Guard(LOCAL), answer_s=0.3)(f"http://127.0.0.1:{port}/", {}, b"{}")
    assert answer.status is None
    assert answer.error is not None


def test_what_speaks_no_http_is_told_and_its_words_are_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"SSH-2.0-secret\0\r\n")
                connection.recv(1000)

        threading.Thread(target=greet, daemon=True).start()
        answer = Post(Guard(LOCAL))(f"http://127.0.0.1:{listener.getsockname()[1]}/", {}, b"{}")
    assert (answer.status, answer.error) == (None, "what it answered is no HTTP (BadStatusLine)")


def test_a_certificate_has_to_be_for_the_host_and_from_somebody_trusted(receive: Any, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    receiver = receive(context=authority.context)
    stranger = Post(Guard(LOCAL))(receiver.url, {}, b"{}")
    assert stranger.status is None
    assert "certificate" in (stranger.error or "").lower()
    trusting = ssl.create_default_context(cafile=str(authority.path))
    assert Post(Guard(LOCAL), trusting)(receiver.url, {}, b"{}").status == 204
    other = Post(Guard(LOCAL, _names(other=["127.0.0.1"])), trusting)
    assert "certificate" in (other(f"https://other:{receiver.port}/", {}, b"{}").error or "").lower()


def test_no_server_is_an_answer_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    answer = Post(Guard(LOCAL))(f"http://127.0.0.1:{port}/", {}, b"{}")
    assert answer.status is None
    assert "refused" in (answer.error or "")
    unknown = Post(Guard())("https://no-such-name.invalid/", {}, b"{}")
    assert "host is not known" in (unknown.error or "")
