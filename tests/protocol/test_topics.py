"""Names: quoted so that they stay one path element and one part of a topic."""

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtolbus.topics import name_fault, quote, shortened, topic, unquote


@given(st.text(min_size=1, max_size=40))
def test_any_name_comes_back_and_is_one_harmless_path_element(name: str) -> None:
    text = quote(name)
    assert unquote(text, errors="surrogatepass") == name
    assert PurePosixPath("data", text).parts == ("data", text)
    assert PureWindowsPath("data", text).parts == ("data", text)
    assert text not in (".", "..")
    assert not text.startswith(".")


@pytest.mark.parametrize(("name", "text"), [("..", "%2E%2E"), ("con", "%63on"), ("a/b", "a%2Fb"), ("dt 1", "dt 1")])
def test_names_that_would_break_out_are_quoted(name: str, text: str) -> None:
    assert quote(name) == text


def test_dt1_does_not_match_dt10_nor_a_name_without_end_anything() -> None:
    assert not topic("block", "dt10", "t").startswith(topic("block", "dt1", "t")[:-2])
    with pytest.raises(ValueError, match="needs a name"):
        quote("")


@pytest.mark.parametrize("letter", ["x", "ü", "\0", "."])
def test_a_name_of_a_megabyte_is_refused_at_once_and_not_shown_whole(letter: str) -> None:
    name = letter * 1_000_000
    assert len(name_fault(name)) < 500
    assert len(shortened(name)) <= 220
