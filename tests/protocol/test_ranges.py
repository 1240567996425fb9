import pytest

from dtolbus.ranges import in_words


@pytest.mark.parametrize(("start", "end", "told"), [(4, 6, "4 to 5"), (4, 5, "4"), (0, 100, "0 to 99"), (3, 3, "none")])
def test_people_read_the_first_and_the_last_of_what_it_holds(start, end, told):
    assert in_words(start, end) == told
