"""Phone numbers: one number is recognised however it is written, and two are never taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsverify._input.phones import is_same_phone, is_whole_phone, phone_digits

BRITISH = "442079460017"
AMERICAN = "14155550123"


@pytest.mark.parametrize(
    "written",
    [
        *("+44 20 7946 0017", "+44 (0)20 7946 0017", "+44(0) 20-7946-0017", "+44 [0] 20 7946 0017"),
        *("0044 20 7946 0017", "011 44 20 7946 0017", "tel:+44-20-7946-0017", "TEL:+442079460017;ext=5"),
        *("+44 20 7946 0017 ext. 5", "+44 20 7946 0017 x5", "+442079460017#5", "+442079460017 extension 12"),
        *("(+44) 20 7946 0017", "\uff0b44 20 7946 0017", "+\u0664\u0664 20 7946 0017", "442079460017"),
        "\u2068+44 20 7946 0017\u2069",
    ],
)
def test_one_number_in_many_ways(written: str) -> None:
    assert phone_digits(written) == BRITISH
    assert is_same_phone(written, "+44 20 7946 0017")
    assert is_same_phone("+44 20 7946 0017", written)
    assert not is_same_phone(written, "+44 20 7946 0018")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("020 7946 0017", "+44 20 7946 0017"),
        ("(0)20 7946 0017", BRITISH),
        ("415 555 0123", "+1 415 555 0123"),
        ("415-555-0123 x7", AMERICAN),
        ("1 (415) 555-0123", AMERICAN),
    ],
)
def test_a_number_without_its_country(one: str, other: str) -> None:
    assert is_same_phone(one, other)
    assert is_same_phone(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0123", "+44 20 7946 0123"),
        ("020 7946 0017", "+44 20 7946 0018"),
        ("00", "+44 20 7946 0017"),
        ("", ""),
        (None, None),
        ("x5", "x5"),
        ("+44 20 7946 0017", "+49 20 7946 0017"),
        ("7946 0017", "+44 20 7946 0017"),
    ],
)
def test_what_is_not_one_number(one: str | None, other: str | None) -> None:
    assert not is_same_phone(one, other)
    assert not is_same_phone(other, one)


@pytest.mark.parametrize(
    "phone",
    [
        *(
            "+1 415 *** 0123",
            "***0123",
            "+1 415 xxx 0123",
            "+1415555XXXX",
            "+1 415 555 \u2022\u2022\u2022\u2022",
        ),
        *("+1 415 ... 0123", "+1 415 --- 0123", "+1 415 555 01??", "0", "0123", "pending", "", None),
    ],
)
def test_a_number_that_hides_digits_is_not_whole(phone: str | None) -> None:
    assert not is_whole_phone(phone)


WRITTEN = st.builds(
    lambda front, digits, gap, back: front + gap.join(digits) + back,
    st.sampled_from(["+", "00", "011", "0", "(0)", "tel:+", "+44 (0)", ""]),
    st.text("0123456789", min_size=8, max_size=13),
    st.sampled_from(["", " ", "-"]),
    st.sampled_from(["", " x5", " ext. 77", "#9", ";ext=5"]),
)


@given(WRITTEN, WRITTEN)
def test_sameness_goes_both_ways_and_needs_the_same_end(one: str, other: str) -> None:
    assert is_same_phone(one, other) == is_same_phone(other, one)
    ends = [(phone_digits(phone) or "")[-7:] for phone in (one, other)]
    assert ends[0] == ends[1] or not is_same_phone(one, other)


@given(WRITTEN)
def test_however_it_is_written_a_number_with_all_its_digits_is_whole(phone: str) -> None:
    assert is_whole_phone(phone)


@given(st.one_of(st.none(), st.text()))
def test_any_text_is_read(text: str | None) -> None:
    digits = phone_digits(text)
    assert digits is None or (digits.isascii() and digits.isdigit())
