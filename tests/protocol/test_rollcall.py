from dtolbus.rollcall import RollCall


def asked(roll: RollCall, followed: str, *welcome: str) -> str:
    """Say Hello while these runs are followed; return which are gone by the Welcome, whose parts name these."""
    roll.asked(followed)
    for part in welcome:
        roll.named(part)
    return "".join(sorted(roll.gone()))


def test_a_run_that_two_welcomes_in_a_row_do_not_name_is_gone() -> None:
    roll = RollCall()
    assert asked(roll, "abc", "a", "c") == ""
    assert roll.is_in_doubt
    assert asked(roll, "abc", "ac") == "b"
    assert not roll.is_in_doubt
    assert asked(roll, "ac", "ac") == ""


def test_a_run_that_is_named_again_is_not_gone() -> None:
    """The first Welcome answered an earlier Hello."""
    roll = RollCall()
    for welcome in ("a", "ab", "a", "ab"):
        assert asked(roll, "ab", welcome) == ""


def test_a_run_that_was_not_followed_at_the_hello_is_not_missed() -> None:
    roll = RollCall()
    assert [asked(roll, "", "a") for _ in range(3)] == ["", "", ""]
