"""A callback as it came, and what may have become of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from smsverify._input.phones import phone_digits

# What has become of a callback.
OPEN = "open"  # its order is not known yet
VERIFIED = "verified"  # its message is in the inbox
UNVERIFIED = "unverified"  # it proves nothing by itself: the order's status is to be read
KEPT = "kept"  # nothing follows from it


def name_of_secret(secret: str) -> str:
    """A name of a secret of the callback URL that does not show it."""
    return "secret-" + hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class Callback:
    """A callback as it came.

    Attributes:
        by_secret: whether it came by the secret URL.
        kind: `sms`, `wallet`, or `unknown`.
        is_documented: whether it has the documented shape.
        order_id, phone, sender, message: as far as they can be read.
        body: of the request, where that says more.
        secret: the one that it came by, as `name_of_secret` says it.
    """

    by_secret: bool
    kind: str
    is_documented: bool = False
    order_id: int | None = None
    phone: str | None = None
    sender: str | None = None
    message: str | None = None
    body: str | None = None
    secret: str | None = None

    @property
    def digest(self) -> str:
        """The same for a repeat of it. A stranger's copy has another one than what the service sends."""
        parts = ["secret" if self.by_secret else "unsigned", self.kind, str(self.is_documented)]
        if self.body is not None:
            parts += [self.body, str(self.order_id)]
        else:
            phone = phone_digits(self.phone)
            parts += [str(self.order_id), phone or "", self.sender or "", self.message or ""]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()
