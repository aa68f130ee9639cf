"""Times at which keys become due, beside a plain dictionary."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.notifier.timers import Timers

steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from("abcd"), st.integers(0, 20)),
        st.tuples(st.just("discard"), st.sampled_from("abcd")),
        st.tuples(st.just("due"), st.integers(0, 20), st.integers(1, 3)),
    ),
    max_size=40,
)


@given(steps)
@settings(deadline=None)
def test_keys_are_due_once_in_order(script: list[tuple[Any, ...]]) -> None:
    timers, plain = Timers(), dict[str, int]()
    for step in script:
        match step:
            case ("set", key, at):
                timers.set(key, at)
                plain[key] = at
            case ("discard", key):
                timers.discard(key)
                plain.pop(key, None)
            case ("due", now, limit):
                expected = sorted((at, key) for key, at in plain.items() if at <= now)[:limit]
                assert timers.due(now, limit) == [key for _, key in expected]
                for _, key in expected:
                    del plain[key]
        assert len(timers) == len(plain)
        assert timers.first() == min(((at, key) for key, at in plain.items()), default=None)


def test_memory_is_that_of_the_keys() -> None:
    timers = Timers()
    for at in range(100_000):
        timers.set("a", at)
    assert len(timers._heap) < 2_000
