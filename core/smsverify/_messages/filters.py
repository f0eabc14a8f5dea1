"""Which of an order's messages a wait is for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from smsverify._input.patterns import Pattern
from smsverify._input.phones import is_same_phone
from smsverify.checks import check_after, check_pattern, check_sender
from smsverify.models import Message
from smsverify.text import LONGEST_SMS, visible


@dataclass(frozen=True)
class MessageFilter:
    """What a message has to be for a wait to end with it; by default any will do.

    Attributes:
        after: it came later than this.
        sender: who sent it, as a callback names it. A message whose sender is not known does not pass: a
            wrong code is worse than none.
        pattern: its text matches this; the first group is its code, otherwise the whole match.
    """

    after: datetime | None = None
    sender: str | None = None
    pattern: Pattern | None = None

    @classmethod
    def check(cls, *, after: Any = None, sender: Any = None, pattern: Any = None) -> MessageFilter:
        """A filter from what a caller gives.

        Args:
            after: a message, an aware datetime, or that in ISO 8601.
            sender: a name or a number.
            pattern: a regular expression, as text or compiled.

        Raises:
            InvalidRequestError: one of them is malformed; `field` names it.
        """
        return cls(
            after=None if after is None else check_after(after),
            sender=None if sender is None else check_sender(sender),
            pattern=None if pattern is None else check_pattern(pattern),
        )

    @property
    def is_open(self) -> bool:
        """Whether any message will do."""
        return self == MessageFilter()

    @property
    def concerns_content(self) -> bool:
        """Whether a message may pass that is not the newest."""
        return self.sender is not None or self.pattern is not None

    def first(self, candidates: Iterable[Message]) -> Message | None:
        """The first message that passes, with the code that the pattern finds in it."""
        return next((chosen for message in candidates if (chosen := self._choose(message))), None)

    def may_still_pass(self, candidates: Iterable[Message]) -> bool:
        """Whether one fails only because its sender is not known, which a callback may bring."""
        if self.sender is None:
            return False
        of_any = replace(self, sender=None)
        return of_any.first(message for message in candidates if message.sender is None) is not None

    def unknown(self, candidates: Iterable[Message]) -> list[str]:
        """The texts in which its pattern has not been looked for yet, which may take a while."""
        pattern = self.pattern
        if pattern is None:
            return []
        return [text for text in map(_searched, candidates) if not pattern.knows(text)]

    def _choose(self, message: Message) -> Message | None:
        if self.after is not None and (message.received_at is None or message.received_at <= self.after):
            return None
        if self.sender is not None and not _is_same_sender(self.sender, message.sender):
            return None
        if self.pattern is None:
            return message
        text = _searched(message)
        code = self.pattern.find(text)
        self.pattern.report(text, message.order_id)
        return None if code is None else message.model_copy(update={"otp": code})


def _searched(message: Message) -> str:
    """What a pattern is looked for in. Where the service shows no text, the code is all that there is."""
    text = message.message or message.otp or ""
    return visible(text) if len(text) <= LONGEST_SMS else ""


def _is_same_sender(wanted: str, sender: str | None) -> bool:
    if sender is None:
        return False
    if " ".join(wanted.split()).casefold() == " ".join(sender.split()).casefold():
        return True
    is_number = not re.search(r"[^\W\d_]", wanted + sender)
    return is_number and is_same_phone(wanted, sender)
