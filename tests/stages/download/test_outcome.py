"""Failures explain themselves, and addresses are judged by where they lead."""

from __future__ import annotations

import pytest

from stages.download.address import is_public
from stages.download.outcome import Failure, Reason


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason != Reason.SUCCESS])
def test_every_reason_explains_itself(reason: Reason) -> None:
    detailed = {Reason.TOO_LARGE, Reason.TOO_SMALL, Reason.UNSUPPORTED_FORMAT, Reason.TOO_MANY_PIXELS}
    assert Failure(reason, "detail" if reason in detailed else "").explanation


@pytest.mark.parametrize(
    ("status", "transient"),
    [
        ("http_404", False),
        ("http_410", False),
        ("http_429", True),
        ("http_503", True),
        ("timeout", True),
        ("opt_out", False),
        ("not_an_image", False),
        ("truncated", False),
    ],
)
def test_only_what_may_pass_is_transient(status: str, transient: bool) -> None:
    assert Failure(status).transient is transient


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
    ],
)
def test_private_addresses_are_known_in_every_notation(address: str, public: bool) -> None:
    assert is_public(address) is public
