"""What a fault makes of an answer before it is sent. Going wrong while sending is the server's part."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from smsverify.simulator.answers import Answer, refusal, reply
from smsverify.simulator.faults import Fault
from smsverify.simulator.routes import Route
from smsverify.simulator.state import PROVIDER_ERROR

HTML = "text/html; charset=utf-8"
NOTHING_SENT = ("reset", "lost_answer")

_PAGE = b"<!doctype html><title>Sorry</title><h1>We will be back soon</h1>"


def too_many(limit: int | None) -> Answer:
    """The documented 429."""
    return reply({"error": f"Rate limit exceeded. Maximum {limit or 60} requests per minute."}, 429)


def mangled(fault: Fault, right: Answer | None, route: Route, path: str, limit: int | None) -> Answer:
    """The answer that a fault makes of the right one.

    Args:
        fault: What the request meets.
        right: The answer that it would have had; None if the request took no effect.
        route: Its endpoint, which gives errors their shape.
        path: Its path.
        limit: The limiter's, for the text of a 429.
    """
    unavailable = refusal(503, "Service temporarily unavailable", route.wrapped_errors)
    made = dataclasses.replace(right or unavailable, headers=dict((right or unavailable).headers))
    other: dict[str, Callable[[], Answer]] = {
        "unauthorized": lambda: refusal(401, *route.unauthorized),
        "forbidden": lambda: refusal(403, "Forbidden", route.wrapped_errors),
        "rate_limited": lambda: too_many(limit),
        "out_of_stock": lambda: refusal(400, "Service not available", route.wrapped_errors),
        "success_false": lambda: refusal(200, "Service temporarily unavailable", wrapped=True),
        "error_before": lambda: refusal(503, "Internal server error", route.wrapped_errors),
        "error_after": lambda: refusal(500, "Internal server error", route.wrapped_errors),
        "provider_failure": lambda: refusal(502, PROVIDER_ERROR, route.wrapped_errors),
        "redirect": lambda: Answer(301, b"", HTML, {"Location": fault.location or path}),
        "html": lambda: Answer(made.status, _PAGE, HTML),
        "cut_json": lambda: dataclasses.replace(made, body=made.body[: int(len(made.body) * fault.fraction)]),
        "empty_body": lambda: dataclasses.replace(made, body=b""),
        "wrong_content_type": lambda: dataclasses.replace(made, content_type="text/plain"),
    }
    made = other[fault.kind]() if fault.kind in other else made
    made.status = fault.answer_status(made.status)
    if fault.body is not None:
        made.body = fault.body.encode()
    if fault.retry_after is not None:
        made.headers["Retry-After"] = str(fault.retry_after)
    return made
