"""What people see: no password, and no character that is more than text."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtolbus.dsn import dsn_with
from dtolbus.logs import _Lines
from dtolbus.shown import masked, masked_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("to postgresql://lab:s3cr3t@h:5432/d now", "to postgresql://lab:…@h:5432/d now"),
        ("'postgres://lab:a@b:c/d@h/d'", "'postgres://lab:…@h/d'"),
        ('"postgresql://:s3cr3t@h"', '"postgresql://:…@h"'),
        ("postgresql://lab@h/d?password=s3cr3t&sslmode=require", "postgresql://lab@h/d?password=…&sslmode=require"),
        ("sslpassword=s3cr3t PASSWORD=x", "sslpassword=… PASSWORD=…"),
        ("tcp://127.0.0.1:5601 is not heard", "tcp://127.0.0.1:5601 is not heard"),
        ("http://h/path:1@2", "http://h/path:1@2"),
        ("a: b@c", "a: b@c"),
    ],
)
def test_passwords_of_addresses_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize("line", ['dsn = "se cret', " dsn=secret", '"dsn" = secret', "password = 'secret'"])
def test_of_a_line_with_a_dsn_only_the_key_is_shown(line: str) -> None:
    assert "cret" not in masked_line(line)
    assert "…" in masked_line(line)


@given(st.text(st.characters(exclude_categories=["Z", "C"], exclude_characters="@/:'\"")), st.text(), st.text())
def test_whatever_stands_around_it_a_password_is_masked(user: str, before: str, after: str) -> None:
    assert "Pass+word" not in masked(f"{before} postgresql://{user}:Pass+word@host/d {after}")


@pytest.mark.parametrize("piece", ["a", "a://", "a://b:", ":", "@", "x=", "password="])
def test_long_texts_are_masked_as_fast_as_they_are_read(piece: str) -> None:
    assert len(masked(piece * 300_000)) > 0


@given(st.text())
def test_what_is_shown_is_one_line_of_text(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(text) == text or not text.isprintable()


@pytest.mark.parametrize("as_json", [False, True])
def test_a_peers_text_forges_no_line_of_a_log(as_json: bool) -> None:
    record = logging.makeLogRecord({"msg": "message dropped", "levelname": "WARNING", "levelno": 30, "name": "dtolbus"})
    record.cause = "x\n2026-01-01 00:00:00,000 ERROR forged \x1b[2J postgresql://u:s3cr3t@h/d"
    line = _Lines(as_json).format(record)
    assert "\n" not in line
    assert "\x1b" not in line
    assert "s3cr3t" not in line
    if as_json:
        assert json.loads(line)["cause"].startswith("x\n")


def test_options_stand_behind_those_of_the_url() -> None:
    assert dsn_with("postgresql://h/d", {}) == "postgresql://h/d"
    assert dsn_with("postgresql://h/d", {"sslmode": "require"}) == "postgresql://h/d?sslmode=require"
    assert dsn_with("postgresql://h/d?a=b", {"sslrootcert": "/a b"}) == "postgresql://h/d?a=b&sslrootcert=%2Fa+b"
