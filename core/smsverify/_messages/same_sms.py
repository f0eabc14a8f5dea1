"""Whether two sightings are the same SMS. An order's status shows it, a callback brings it, or both do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from smsverify._store.tables import messages
from smsverify.models import Message


@dataclass(frozen=True)
class Sms:
    """What is known of an SMS.

    Attributes:
        order_id: of the order that it came for.
        otp, message, sender, phone: as in `Message`; code and text are `None` once they have been purged.
        shown_as: the digest of what the order's status showed; `None` where no status has shown it.
        called_as: the digest of what a callback brought; `None` where none has.
        id: of its row.
    """

    order_id: int
    otp: str | None = None
    message: str | None = None
    sender: str | None = None
    phone: str | None = None
    shown_as: str | None = None
    called_as: str | None = None
    id: int | None = None

    @classmethod
    def shown(cls, message: Message) -> Sms:
        """What an order's status shows, which never says who sent it."""
        return cls(
            message.order_id,
            message.otp,
            message.message,
            phone=message.phone,
            shown_as=digest_of(message.order_id, message.otp, message.message),
        )

    @classmethod
    def called(cls, row: Any) -> Sms:
        """What a callback brings, from its row."""
        digest = digest_of(row.order_id, row.otp, row.message)
        return cls(row.order_id, row.otp, row.message, row.sender, called_as=digest)

    @classmethod
    def known(cls, row: Any) -> Sms:
        """What a row of the inbox knows."""
        return cls(
            row.order_id,
            row.otp,
            row.message,
            row.sender,
            row.phone,
            row.shown_as,
            row.called_as,
            row.id,
        )

    def completed(self, other: Sms) -> Sms:
        """This SMS with what another sighting of it adds."""
        both = replace(
            self,
            sender=self.sender or other.sender,
            shown_as=self.shown_as or other.shown_as,
            called_as=self.called_as or other.called_as,
        )
        if self.otp is None and self.message is None:
            return both  # purged, and to remain so
        otp = self.otp or other.otp
        if self.shown_as is None and other.message is not None and has_same_content(self, other):
            otp = (
                other.otp or otp
            )  # the status shows the service's own code, and a callback's is read from the text
        both = replace(both, phone=self.phone or other.phone, otp=otp)
        if self.message is not None or other.message is None:
            return both
        return replace(
            both,
            message=other.message,
            # A code that came without its text may have lost its leading zeros.
            otp=other.otp or self.otp,
            # From now on, the status is recognised by the text.
            shown_as=other.shown_as or self.shown_as,
        )


def is_same_sms(one: Sms, other: Sms) -> bool:
    """Whether two sightings are of the same SMS.

    The text decides, and the senders where both are known. A code decides where there are not two texts of
    the same way to compare: a status may show no text, or words other than those of the callback. Two SMS
    may have the same code, so of two texts in statuses, or of two in callbacks, each is an SMS of its own.
    """
    if one.order_id != other.order_id:
        return False
    if has_same_content(one, other):
        return None in (one.sender, other.sender) or one.sender == other.sender
    if one.otp is None or other.otp is None or _bare(one.otp) != _bare(other.otp):
        return False
    if one.shown_as and other.shown_as:
        return None in (one.message, other.message)
    return not (one.called_as and other.called_as)


def has_same_content(one: Sms, other: Sms) -> bool:
    """Whether both were seen with the same text, or with the same code where they have no text."""
    return not {one.shown_as, one.called_as}.isdisjoint({other.shown_as, other.called_as} - {None})


def find_same(known: Iterable[Sms], seen: Sms) -> Sms | None:
    """The SMS that was seen again: the first with the same content, otherwise the first that is the same."""
    otherwise = None
    for one in known:
        if is_same_sms(one, seen):
            if has_same_content(one, seen):
                return one
            otherwise = otherwise or one
    return otherwise


def digest_of(order_id: int, otp: str | None, message: str | None) -> str | None:
    """Stands for the text, otherwise for the code, also after both were purged; `None` without both."""
    text = " ".join((message or "").split())
    if not text and otp is None:
        return None
    content = f"{order_id}\0{text}\0{'' if text else _bare(otp or '')}"
    return hashlib.sha256(content.encode()).hexdigest()


def has_code(otp: str) -> sa.ColumnElement[bool]:
    """Picks the messages with the same code, as `is_same_sms` compares codes."""
    plain = sa.func.replace(sa.func.replace(messages.c.otp, "-", ""), " ", "")
    return sa.func.ltrim(plain, "0") == _bare(otp)


def _bare(otp: str) -> str:
    """A code may be written in groups, and has lost its leading zeros where it was a number."""
    return otp.replace("-", "").replace(" ", "").lstrip("0")
