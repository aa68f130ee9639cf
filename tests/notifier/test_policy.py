"""The policy as tables: transition, what is remembered, and the answer to the claim give the decision."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from schemas.alert import Reason, Transition
from streams.notifier.policy import (
    MAX_ENDED,
    MAX_RECENT,
    Claim,
    Claimed,
    Decision,
    Dispatched,
    Group,
    Held,
    UnreadableTransitionError,
    claim_for,
    decide,
    has_won,
    judge_claim,
    read_case,
    release,
)
from streams.testing import START
from tests.notifier.cases import MINUTE, Episode, case, encode

NOW = START + MINUTE
TTL = 15 * MINUTE
WON = Claimed(won=True, holder="mine", remaining=TTL)
TAKEN = Claimed(won=False, holder="other", remaining=4 * MINUTE)


def after_fire() -> Episode:
    episode = Episode()
    episode.fire()
    return episode


def dispatched(ordinal: int = 0, fire_count: int = 1) -> Dispatched:
    return Dispatched(case(Episode().fire()).group, ordinal, fire_count)


def held(ordinal: int = 0) -> Held:
    fired = Episode().fire()
    return Held(case(fired).group, ordinal, NOW, encode(fired))


@pytest.mark.parametrize(
    ("transition", "episode", "claimed", "reason", "dispatch", "remains"),
    [
        (lambda: Episode().fire(), None, WON, Reason.FIRST_NOTIFICATION, True, Dispatched),
        (lambda: Episode().fire(), None, TAKEN, Reason.IN_COOLDOWN, False, Held),
        (lambda: Episode(cooldown=0).fire(), None, None, Reason.FIRST_NOTIFICATION, True, Dispatched),
        (lambda: after_fire().rise(), dispatched(), WON, Reason.SEVERITY_RAISED, True, Dispatched),
        (lambda: after_fire().rise(), held(), WON, Reason.SEVERITY_RAISED, True, Dispatched),
        (lambda: after_fire().rise(), None, WON, Reason.SEVERITY_RAISED, True, Dispatched),
        (lambda: after_fire().resolve(), dispatched(), None, Reason.RESOLVED, True, None),
        (lambda: after_fire().resolve(), held(), None, Reason.ENDED_WHILE_HELD, False, None),
        (lambda: after_fire().resolve(), None, None, Reason.ENDED_WHILE_HELD, False, None),
    ],
)
def test_decisions(
    transition: Callable[[], Transition],
    episode: Dispatched | Held | None,
    claimed: Claimed | None,
    reason: Reason,
    dispatch: bool,
    remains: type[Dispatched | Held] | None,
) -> None:
    decision = decide(case(transition()), Group(), episode, claimed, NOW)
    assert decision is not None
    assert (decision.reason, decision.dispatch) == (reason, dispatch)
    assert decision.episode is None if remains is None else isinstance(decision.episode, remains)


def test_a_held_firing_tells_until_when_and_by_whom() -> None:
    decision = decide(case(Episode().fire()), Group(), None, TAKEN, NOW)
    assert decision is not None
    assert decision.held_until == NOW + 4 * MINUTE
    assert decision.record.details["held_until"] == NOW + 4 * MINUTE
    assert decision.record.details["held_by"] == "other"


def test_a_record_differs_from_its_transition_by_what_was_decided_only() -> None:
    transition = Episode().fire()
    decision = decide(case(transition), Group(fires=2), None, WON, NOW)
    assert decision is not None
    assert decision.record == transition.model_copy(update={"reason": Reason.FIRST_NOTIFICATION, "fire_count": 3})


def test_fire_count_counts_since_the_last_dispatched_firing() -> None:
    group = Group()
    counts = []
    for number, claimed in enumerate((WON, TAKEN, TAKEN, WON, TAKEN)):
        episode = Episode(f"e{number}")
        fired = decide(case(episode.fire()), group, None, claimed, NOW)
        assert fired is not None
        resolved = decide(case(episode.resolve()), fired.group, fired.episode, None, NOW)
        assert resolved is not None
        assert resolved.record.fire_count == fired.record.fire_count
        counts.append(fired.record.fire_count)
        group = resolved.group
    assert counts == [1, 1, 2, 3, 1]


def test_a_held_firing_is_released_when_the_cooldown_is_over() -> None:
    fired = Episode().fire()
    outcome = release(held(), case(fired), Group(fires=2), WON, NOW)
    assert isinstance(outcome, Decision)
    assert (outcome.reason, outcome.dispatch) == (Reason.COOLDOWN_OVER, True)
    assert (outcome.record.id, outcome.record.fire_count) == (fired.id, 2)
    assert isinstance(outcome.episode, Dispatched)
    assert outcome.group.fires == 0


def test_a_held_firing_waits_on_while_another_holds_the_cooldown() -> None:
    outcome = release(held(), case(Episode().fire()), Group(fires=1), TAKEN, NOW)
    assert isinstance(outcome, Held)
    assert outcome.until == NOW + 4 * MINUTE


def test_a_held_firing_whose_cooldown_ends_now_is_looked_at_later() -> None:
    outcome = release(held(), case(Episode().fire()), Group(), Claimed(won=False, holder="other", remaining=0), NOW)
    assert isinstance(outcome, Held)
    assert outcome.until > NOW


@pytest.mark.parametrize("remembered", [dispatched(), held()])
def test_a_second_copy_decides_nothing(remembered: Dispatched | Held) -> None:
    fired = case(Episode().fire())
    assert claim_for(fired, Group(), remembered) is None
    assert decide(fired, Group(), remembered, None, NOW) is None


def test_a_second_copy_of_an_episode_that_ended_decides_nothing() -> None:
    episode = Episode()
    fired, resolved = case(episode.fire()), case(episode.resolve())
    group = Group(ended=(fired.episode,))
    assert claim_for(fired, group, None) is None
    assert decide(fired, group, None, None, NOW) is None
    assert decide(resolved, group, None, None, NOW) is None


# --- claims -------------------------------------------------------------------------------------------------------


def test_only_firings_with_a_cooldown_claim_and_rises_take_over() -> None:
    episode = Episode()
    fired = episode.fire()
    assert claim_for(case(fired), Group(), None) == Claim(case(fired).group, fired.id, TTL)
    raised = case(episode.rise())
    assert claim_for(raised, Group(recent=("x",)), dispatched()) == Claim(raised.group, raised.transition.id, TTL, True, ("x",))
    assert claim_for(case(episode.resolve()), Group(), dispatched()) is None
    assert claim_for(case(Episode(cooldown=0).fire()), Group(), None) is None


@pytest.mark.parametrize(
    ("holders", "won"), [((), True), (("a",), True), (("other",), False), (("other", "a"), True), (("aa", "b"), False)]
)
def test_own_id_wins(holders: tuple[str, ...], won: bool) -> None:
    assert has_won("a", holders) is won
    assert judge_claim(Claim("g", "a", TTL), holders, MINUTE).won is won


def test_a_takeover_always_wins() -> None:
    assert judge_claim(Claim("g", "a", TTL, takeover=True), ("other",), 3) == Claimed(won=True, holder="a", remaining=TTL)


def test_holders_are_the_claimant_and_those_dispatched_before_it() -> None:
    assert Claim("g", "a", TTL, recent=("b", "a", "c")).holders == ("a", "b", "c")
    assert len(Claim("g", "a", TTL, recent=tuple(map(str, range(20)))).holders) == MAX_RECENT


def test_what_a_group_remembers_is_bounded() -> None:
    group = Group()
    for number in range(200):
        episode = Episode(f"e{number}")
        fired = decide(case(episode.fire()), group, None, WON, NOW)
        assert fired is not None
        ended = decide(case(episode.resolve()), fired.group, fired.episode, None, NOW)
        assert ended is not None
        group = ended.group
    assert len(group.recent) == MAX_RECENT
    assert len(group.ended) == MAX_ENDED


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"v": 2}, "version 2"),
        ({"status": "open"}, "status"),
        ({"details": {}}, "details.kind"),
        ({"details": {"kind": "resolved", "ordinal": 0, "cooldown": 0}}, "does not go with"),
        ({"details": {"kind": "fired", "ordinal": -1, "cooldown": 0}}, "details.ordinal"),
        ({"details": {"kind": "fired", "ordinal": 0, "cooldown": "15m"}}, "details.cooldown"),
        ({"details": {"kind": "fired", "ordinal": True, "cooldown": 0}}, "details.ordinal"),
        ({"details": {"kind": ["fired"], "ordinal": 0, "cooldown": 0}}, "details.kind"),
    ],
)
def test_what_is_no_transition_is_refused(change: dict[str, object], said: str) -> None:
    document = json.loads(encode(Episode().fire())) | change
    with pytest.raises(UnreadableTransitionError, match=said):
        read_case(json.dumps(document).encode())


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"{}", b"[1]", b"null", b"[" * 10_000])
def test_what_is_no_json_object_is_refused(value: bytes | None) -> None:
    with pytest.raises(UnreadableTransitionError):
        read_case(value)
