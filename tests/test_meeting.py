"""Two processes that are to meet."""

from gan.meeting import two_meet


def test_two_meet_or_it_is_said_what_came_of_it() -> None:
    assert two_meet("gloo", 60) == ""
    assert two_meet("gloo", 0.01) == "nothing came of it in 0.01 s"
    assert "carrier-pigeon" in two_meet("carrier-pigeon", 60).lower()
