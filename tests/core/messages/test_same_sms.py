"""The same SMS is recognised in each way and each order in which it is seen, and two stay two."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsverify._messages.same_sms import Sms, find_same, has_same_content, is_same_sms
from smsverify.models import Message


def called(text: str, otp: str | None = None, sender: str | None = "8843", order_id: int = 7) -> Sms:
    return Sms.called(SimpleNamespace(order_id=order_id, otp=otp, message=text, sender=sender))


def shown(text: str | None, otp: str | None = None, order_id: int = 7) -> Sms:
    return Sms.shown(Message(order_id=order_id, otp=otp, message=text))


def arrive(sightings: list[Sms]) -> list[Sms]:
    """What is known after these sightings, the newest first."""
    known: list[Sms] = []
    for seen in sightings:
        same = find_same(known, seen)
        if same is None:
            known.insert(0, seen)
        else:
            known[known.index(same)] = same.completed(seen)
    return known


CODES = st.sampled_from([None, "1234", "01234", "12-34", "001234", "5678", "A7K-2Q9"])
TEXTS = st.sampled_from(["Code 1234", " Code  1234\n", "1234 is your code", "Welcome!", "Code 5678"])
SENDERS = st.sampled_from([None, "8843", "PayPal"])
ORDERS = st.integers(7, 8)
SIGHTINGS = st.one_of(
    st.builds(called, TEXTS, CODES, SENDERS, ORDERS),
    st.builds(shown, TEXTS, CODES, ORDERS),
    st.builds(shown, st.none(), CODES.filter(lambda code: code is not None), ORDERS),
)
KNOWN = st.lists(SIGHTINGS, min_size=1, max_size=6).map(lambda seen: arrive(seen)[0])


@given(KNOWN)
def test_an_sms_is_the_same_as_itself_also_after_it_was_purged(one: Sms) -> None:
    assert is_same_sms(one, one)
    purged = replace(one, otp=None, message=None)
    assert is_same_sms(one, purged)
    assert purged.completed(one) == purged


@given(KNOWN, KNOWN)
def test_whichever_is_asked_the_answer_is_the_same(one: Sms, other: Sms) -> None:
    assert is_same_sms(one, other) == is_same_sms(other, one)
    assert has_same_content(one, other) == has_same_content(other, one)


@given(KNOWN, SIGHTINGS)
def test_what_is_the_same_stays_the_same_when_it_was_completed(one: Sms, seen: Sms) -> None:
    if is_same_sms(one, seen):
        both = one.completed(seen)
        assert is_same_sms(both, one)
        assert both.completed(seen) == both


@given(st.lists(SIGHTINGS, max_size=8), st.data())
def test_a_repeat_changes_nothing(seen: list[Sms], data: st.DataObject) -> None:
    known = arrive(seen)
    if seen:
        repeated = data.draw(st.sampled_from(seen))
        assert len(arrive([*seen, repeated])) == len(known)


@given(st.lists(SIGHTINGS, max_size=8))
def test_orders_have_nothing_to_do_with_each_other(seen: list[Sms]) -> None:
    alone = [arrive([one for one in seen if one.order_id == order_id]) for order_id in (7, 8)]
    together = arrive(seen)
    assert alone == [[one for one in together if one.order_id == order_id] for order_id in (7, 8)]


# ------------------------------------------------------------------ any order of arrival


@dataclass(frozen=True)
class Real:
    """An SMS as it was sent, and by which ways it is seen."""

    code: str
    sender: str
    is_called: bool
    is_shown: bool

    @property
    def text(self) -> str:
        return f"Your code is {self.code}"


REALS = st.lists(
    st.builds(
        Real,
        st.from_regex(r"[0-9]{4,8}", fullmatch=True).filter(lambda code: code.strip("0") != ""),
        st.sampled_from(["8843", "PayPal"]),
        st.booleans(),
        st.booleans(),
    ).filter(lambda real: real.is_called or real.is_shown),
    max_size=5,
    unique_by=lambda real: real.code.lstrip("0"),
)
# How the status of this service shows an SMS.
SHOWN = {
    "text": lambda real: shown(real.text, real.code),
    "other words": lambda real: shown(f"{real.code} (PayPal)", real.code),
    "code": lambda real: shown(None, real.code),
    "groups": lambda real: shown(None, f"{real.code[:3]}-{real.code[3:]}"),
    "number": lambda real: shown(None, real.code.lstrip("0")),
}


@pytest.mark.parametrize("way", SHOWN)
@given(reals=REALS, data=st.data())
def test_each_sms_is_one_in_any_order_of_arrival(way: str, reals: list[Real], data: st.DataObject) -> None:
    sightings = [called(real.text, real.code, real.sender) for real in reals if real.is_called]
    sightings += [SHOWN[way](real) for real in reals if real.is_shown]
    repeats = data.draw(st.lists(st.sampled_from(sightings), max_size=5)) if sightings else []
    known = arrive(data.draw(st.permutations(sightings + repeats)))
    assert len(known) == len(reals)
    for real in reals:
        one = find_same(known, shown(real.text, real.code) if way == "text" else SHOWN[way](real))
        assert one is not None
        assert one.sender == (real.sender if real.is_called else None)
        assert (one.called_as is not None, one.shown_as is not None) == (real.is_called, real.is_shown)
        if real.is_called:
            assert one.otp is not None
            assert one.otp.replace("-", "").lstrip("0") == real.code.lstrip("0")


# ------------------------------------------------------------------ two SMS with one code


def test_two_texts_with_one_code_are_two_where_one_way_has_both() -> None:
    first, second = "Your code is 1234", "Reminder: 1234 is your code"
    assert not is_same_sms(called(first, "1234"), called(second, "1234"))
    assert not is_same_sms(shown(first, "1234"), shown(second, "1234"))
    assert len(arrive([called(first, "1234"), shown(first, "1234"), shown(second, "1234")])) == 2


def test_a_status_repeats_the_sms_of_a_callback_in_other_words_or_without() -> None:
    one = called("Your code is 01234", "01234")
    for seen in (shown("01234 (PayPal)", "01234"), shown(None, "1234"), shown(None, "01-234")):
        assert is_same_sms(one, seen)
        assert one.completed(seen).otp == seen.completed(one).otp or seen.message is not None


def test_the_code_that_a_status_shows_replaces_what_was_read_from_the_same_text() -> None:
    text = "Your code is 545678"
    by_callback, in_status = called(text, "545678"), shown(text, "0545678")
    for sightings in ([by_callback, in_status], [in_status, by_callback]):
        (known,) = arrive(sightings)
        assert known.otp == "0545678"
    (known,) = arrive([called("Your code is 0545678", "0545678"), shown(None, "545678")])
    assert known.otp == "0545678"  # a status without the text may have lost the zero


def test_one_text_of_two_senders_is_two_and_a_status_may_show_either() -> None:
    one, other = called("Hello", sender="8843"), called("Hello", sender="PayPal")
    assert not is_same_sms(one, other)
    assert is_same_sms(one, shown("Hello"))
    assert is_same_sms(other, shown("Hello"))
    assert {known.sender for known in arrive([one, other, shown("Hello")])} == {"8843", "PayPal"}
