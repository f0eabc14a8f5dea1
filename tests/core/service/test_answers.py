"""What an answer means: which error, in whose words, and what of it is quoted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from smsverify import errors
from smsverify._service.answers import Answer, as_error, as_reply, is_rejection, redacted_excerpt, unexpected

KEY = "key-TOPSECRET-4711"


def answer(status: int, body: Any = "", **headers: str) -> Answer:
    text = body if isinstance(body, str) else json.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, named, text, "POST /api/v1/order/temporary/", KEY)


def error_of(status: int, body: Any = "", **headers: str) -> Any:
    return as_error(answer(status, body, **headers))


# ------------------------------------------------------------------ which error


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (400, "Upstream service error, please retry", errors.ServiceError),
        (400, "Refunds are not possible for this service", errors.ServiceError),
        (400, "Number active for its whole duration", errors.ServiceError),
        (400, "duration must be 3 or 30", errors.InvalidRequestError),
        (401, "Invalid API key", errors.AuthenticationError),
        (401, "Invalid or missing API key", errors.AuthenticationError),
        (403, "You do not have permission", errors.AuthenticationError),
        (403, "Insufficient balance", errors.AuthenticationError),
        (402, "Insufficient balance", errors.InsufficientBalanceError),
        (402, "whatever", errors.InsufficientBalanceError),
        (400, "Insufficient balance", errors.InsufficientBalanceError),
        (404, "Insufficient balance", errors.InsufficientBalanceError),
        (400, "Insufficient wallet funds", errors.InsufficientBalanceError),
        (400, "Not enough credits", errors.InsufficientBalanceError),
        (400, "Insufficient stock", errors.NotAvailableError),
        (404, "Not enough numbers in this area", errors.NotAvailableError),
        (400, "insufficient_stock", errors.NotAvailableError),
        (400, "Your balance is insufficient", errors.InsufficientBalanceError),
        (400, "INSUFFICIENT_FUNDS", errors.InsufficientBalanceError),
        (400, "Service not available", errors.NotAvailableError),
        (404, "Service not found", errors.NotAvailableError),
        (404, "Plan not found", errors.NotAvailableError),
        (400, "Out of stock", errors.NotAvailableError),
        (400, "No numbers at the moment", errors.NotAvailableError),
        (404, "Order not found", errors.NotFoundError),
        (404, "Not found.", errors.NotFoundError),
        (404, "", errors.NotFoundError),
        (400, "Order cannot be cancelled", errors.NotCancellableError),
        (429, "Rate limit exceeded. Maximum 60 requests per minute.", errors.RateLimitedError),
        (408, "", errors.ServiceUnavailableError),
        (425, "", errors.ServiceUnavailableError),
        (500, "Service not available", errors.ServiceUnavailableError),
        (502, "Insufficient balance", errors.ServiceUnavailableError),
        (503, "", errors.ServiceUnavailableError),
        (599, "", errors.ServiceUnavailableError),
        (301, "", errors.UnexpectedResponseError),
        (307, "", errors.UnexpectedResponseError),
        (400, "country_id query parameter is required", errors.InvalidRequestError),
        (400, "The moon is in the wrong house", errors.ServiceError),
        (409, "Conflict", errors.ServiceError),
        (405, "", errors.ServiceError),
    ],
)
def test_an_error_is_classified_by_status_or_else_by_text(
    status: int, text: str, kind: type[errors.ServiceError | errors.InvalidRequestError]
) -> None:
    bodies: list[Any] = [{"error": text}, {"success": False, "error": text}, {"detail": text}]
    if status in (400, 402, 404):
        bodies.append([text])
    for body in bodies:
        error = error_of(status, body)
        assert type(error) is kind
        assert error.status_code == status
        assert text in str(error)


@pytest.mark.parametrize("text", ["Number not available", "Insufficient balance", "Cannot cancel", "What?"])
def test_a_404_to_a_status_says_that_there_is_no_such_order_in_whatever_words(text: str) -> None:
    answer = Answer(404, {}, json.dumps({"error": text}), "GET /api/v1/order/7/status/", "secret")
    assert type(as_error(answer)) is errors.NotFoundError


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("You do not have permission to view this order", errors.ServiceError),
        ("Unauthorized: the order is of another account", errors.ServiceError),
        ("Forbidden", errors.ServiceError),
        ("Order cannot be cancelled", errors.NotCancellableError),
        ("Insufficient balance", errors.InsufficientBalanceError),
        ("Rate limit exceeded. Maximum 60 requests per minute.", errors.RateLimitedError),
        ("Too many requests with this API key", errors.RateLimitedError),
        ("Invalid API key", errors.AuthenticationError),
        ("Your API key may not cancel orders", errors.AuthenticationError),
        ("Authentication credentials were not provided.", errors.AuthenticationError),
    ],
)
def test_a_403_about_one_order_refuses_the_key_only_where_it_names_it(
    text: str, kind: type[errors.ServiceError]
) -> None:
    for path in ("order/7/status/", "order/7/cancel/", "order/7/renew/"):
        answer = Answer(403, {}, json.dumps({"error": text}), f"POST /api/v1/{path}", KEY)
        assert type(as_error(answer)) is kind
    for path in ("orders/", "balance/", "order/temporary/", "services/esim/"):
        answer = Answer(403, {}, json.dumps({"error": text}), f"GET /api/v1/{path}", KEY)
        is_limit = kind is errors.RateLimitedError
        assert type(as_error(answer)) is (kind if is_limit else errors.AuthenticationError)


ENVELOPES: list[tuple[Any, str]] = [
    ({"error": "No luck"}, "No luck"),
    ({"success": False, "error": "No luck"}, "No luck"),
    ({"success": False, "message": "No luck"}, "No luck"),
    ({"detail": "No luck"}, "No luck"),
    ({"error": True, "message": "No luck"}, "No luck"),
    ({"error": 17, "detail": "No luck"}, "No luck"),
    ({"error": "", "detail": "No luck"}, "No luck"),
    ({"error": None, "errors": ["No luck"]}, "No luck"),
    ({"error": {"code": 7, "message": "No luck"}}, "No luck"),
    ({"status": "error", "message": "No luck"}, "No luck"),
    ({"non_field_errors": ["No luck", "None at all"]}, "No luck; None at all"),
    (["No luck"], "No luck"),
    ("No luck", "No luck"),
    ('"No luck"', "No luck"),
]


@pytest.mark.parametrize(("body", "text"), ENVELOPES)
def test_the_service_s_own_words_are_found_in_every_envelope(body: Any, text: str) -> None:
    error = error_of(409, body)
    assert error.service_message == text
    assert str(error) == f"POST /api/v1/order/temporary/ answered 409: {text}"
    assert error.endpoint == "POST /api/v1/order/temporary/"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"service_id": ["A valid integer is required."]}, "service_id"),
        ({"area_code": "Enter a valid value."}, "area_code"),
        ({"errors": {"duration": ["Not a choice."]}}, "duration"),
        ({"success": False, "error": {"plan": ["This field may not be blank."]}}, "plan"),
        ({"error": "service_id is required"}, "service_id"),
        ({"detail": [{"loc": ["body", "country_id"], "msg": "missing"}]}, "loc"),
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_a_validation_error_names_the_field(status: int, body: Any, field: str) -> None:
    error = error_of(status, body)
    assert type(error) is errors.InvalidRequestError
    assert error.status_code == status
    if field != "loc":
        assert error.field == field


@pytest.mark.parametrize(
    "body",
    [
        *("", "<html><h1>Bad gateway</h1></html>", "{", "[", "[" * 100_000, "null", "7"),
        '{"error": ' + "[" * 500 + "]" * 500 + "}",
        '{"error": ' * 500 + '"x"' + "}" * 500,
    ],
)
@pytest.mark.parametrize("status", [400, 404, 500])
def test_html_empty_cut_and_absurd_bodies_survive(status: int, body: str) -> None:
    error = error_of(status, body)
    assert isinstance(error, errors.ServiceError)
    assert error.status_code == status


# ------------------------------------------------------------------ success or not


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_a_success(status: int) -> None:
    reply = as_reply(answer(status, {"success": True, "data": {"a": 1.10}}))
    assert reply is not None
    assert str(reply.body["data"]["a"]) == "1.1"


def test_a_2xx_that_says_success_false_or_nothing_but_an_error_is_none() -> None:
    assert as_reply(answer(200, {"success": False, "error": "x"})) is None
    assert as_reply(answer(200, {"error": "x"})) is None
    assert as_reply(answer(200, {"success": True, "error": None, "order_id": 1})) is not None


@pytest.mark.parametrize("word", ["none", "None", "0", "null", "false", "-", "No error"])
def test_a_word_for_none_is_no_error(word: str) -> None:
    assert as_reply(answer(200, {"error": word, "order_id": 7, "status": "pending"})) is not None
    assert as_reply(answer(200, {"error": f"{word} at all", "order_id": 7, "status": "pending"})) is None


@pytest.mark.parametrize(
    ("body", "is_reply"),
    [
        ({"order_id": 7, "status": "expired", "error": "No SMS received in time"}, True),
        ({"order_id": 7, "status": "failed", "error": "Provider timeout"}, True),
        ({"otp": "548921", "error": "Delivered late"}, True),
        ({"data": {"order_id": 7, "status": "expired"}, "error": "No SMS received in time"}, True),
        ({"order_id": 7, "error": "Order not found"}, False),
        ({"order_id": 7, "status": "error", "error": "Oops"}, False),
        ({"status": "failed", "error": "Oops"}, False),
        ({"otp": None, "error": "Oops"}, False),
        ({"success": False, "order_id": 7, "status": "expired", "error": "Oops"}, False),
    ],
)
def test_an_error_in_the_status_of_an_order_is_the_order_s(body: dict[str, Any], is_reply: bool) -> None:
    asked = Answer(200, {}, json.dumps(body), "GET /api/v1/order/7/status/", KEY)
    assert (as_reply(asked) is not None) is is_reply
    assert as_reply(answer(201, body)) is None


@pytest.mark.parametrize("body", ["", "<html>", "{", "[" * 100_000, "\ufeff["])
def test_a_2xx_that_is_not_json_cannot_be_read(body: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (whatever the words)
        as_reply(answer(200, body))


PAGE = "<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head><p>Sorry</p></html>"
NOT_THE_SERVICE: list[Any] = [
    "",
    PAGE,
    "{",
    "null",
    "Forbidden",
    '"Forbidden"',
    [],
    [{}],
    {},
    {"message": "Forbidden"},
    {"title": "Error 1020: Access denied", "status": 403, "detail": "The owner has blocked you"},
    {"error_code": 1015, "detail": "You are being rate limited", "cloudflare_error": True, "ray_id": "9"},
]


@pytest.mark.parametrize("body", NOT_THE_SERVICE)
@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422])
def test_what_a_proxy_answers_says_nothing_of_key_order_or_wallet(status: int, body: Any) -> None:
    error = error_of(status, body)
    assert type(error) is errors.ServiceUnavailableError
    assert error.status_code == status
    assert "base_url" in str(error)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (402, {"status": "error", "message": "Insufficient balance"}, errors.InsufficientBalanceError),
        (404, {"status": "fail", "message": "Service not available"}, errors.NotAvailableError),
        (400, {"status": "error", "message": "Provider says no"}, errors.ServiceError),
        (404, {"code": 404, "message": "Service not available"}, errors.NotAvailableError),
        (404, {"code": 404, "message": "Order not found"}, errors.NotFoundError),
        (402, {"error_code": "X", "message": "Insufficient balance"}, errors.InsufficientBalanceError),
        (401, {"status": "error", "message": "Invalid API key"}, errors.AuthenticationError),
        (401, {"code": "unauthorized", "message": "Invalid API key"}, errors.AuthenticationError),
        (
            402,
            {"type": "about:blank", "title": "Payment Required", "detail": "Insufficient balance"},
            errors.InsufficientBalanceError,
        ),
        (402, '"Insufficient balance"', errors.InsufficientBalanceError),
    ],
)
def test_the_service_s_words_are_its_own_in_other_envelopes_too(
    status: int, body: Any, kind: type[errors.ServiceError]
) -> None:
    assert type(error_of(status, body)) is kind
    assert is_rejection(answer(status, body))


@pytest.mark.parametrize("status", [401, 403])
def test_a_list_of_texts_says_nothing_of_the_key(status: int) -> None:
    assert type(error_of(status, ["Forbidden"])) is errors.ServiceUnavailableError


def test_a_page_that_slows_down_is_a_refusal_for_the_rate() -> None:
    assert type(error_of(429, PAGE, Retry_After="9")) is errors.RateLimitedError
    assert error_of(429, PAGE, Retry_After="9").retry_after == 9


@pytest.mark.parametrize("no", [False, "false", "False ", 0, "0", "no"])
def test_success_may_be_denied_in_words(no: Any) -> None:
    assert as_reply(answer(200, {"success": no, "order_id": 7})) is None
    assert as_reply(answer(200, {"success": True, "order_id": 7})) is not None
    assert as_reply(answer(200, {"success": None, "order_id": 7})) is not None


@pytest.mark.parametrize(
    ("body", "read"),
    [
        ('{"a": NaN, "b": 7}', {"a": None, "b": 7}),
        ('{"a": -Infinity}', {"a": None}),
        ('{"a": 1e99999999999999999999}', {"a": "1e99999999999999999999"}),
        (f'{{"a": {"9" * 5000}}}', {"a": "9" * 5000}),
        ('{"a": 1, "a": 1}', {"a": 1}),
    ],
)
def test_a_number_that_is_none_spoils_nothing_else(body: str, read: Any) -> None:
    reply = as_reply(answer(200, body))
    assert reply is not None
    assert reply.body == read


@pytest.mark.parametrize(
    ("status", "body", "rejected"),
    [
        (400, {"error": "x"}, True),
        (401, {"error": "Invalid API key"}, True),
        (402, {"success": False, "error": "Insufficient balance"}, True),
        (403, {"detail": "You do not have permission"}, True),
        (404, {"error": "Service not found"}, True),
        (422, {"service_id": ["No such service."]}, True),
        (429, {}, True),
        (429, "<html>Slow down</html>", True),
        *((status, body, False) for status in (400, 401, 402, 403, 404, 422) for body in NOT_THE_SERVICE),
        (200, {"success": False, "error": "Insufficient balance"}, True),
        (200, {"success": False, "error": "Something went wrong"}, False),
        (200, {"success": False, "order_id": 7, "error": "Insufficient balance"}, False),
        (201, {"order_id": 7, "status": "pending", "error": "Insufficient balance for more"}, False),
        (200, {"success": False, "data": {"order_id": 7}, "error": "Service not available"}, False),
        (408, {}, False),
        (409, {}, False),
        (425, {}, False),
        (301, {}, False),
        (500, {"error": "service_id is required"}, False),
        (502, {}, False),
        (503, {}, False),
    ],
)
def test_only_a_clear_no_proves_that_nothing_was_carried_out(status: int, body: Any, rejected: bool) -> None:
    refusal = answer(status, body)
    assert is_rejection(refusal) is rejected


# ------------------------------------------------------------------ what is quoted


@pytest.mark.parametrize(
    "body",
    [
        {"order_id": 1, "otp": "FOXTROT", "message": "Say FOXTROT"},
        {"data": {"otp": "FOXTROT"}},
        {"otp": ["FOXTROT", "FOXTROT"]},
        {"message": {"text": "dear FOXTROT", "more": ["say FOXTROT"]}},
        {"message": {"order_id": 1, "number": "1", "sms": "say FOXTROT now"}},
        {"messages": [{"sms": "FOXTROT"}]},
        {"esim": {"activation_code": "LPA:1$FOXTROT"}},
        {"sms_text": "say FOXTROT"},
        {"otp_code": "FOXTROT"},
        {"verification_code": "FOXTROT"},
        {"note": f"your key is {KEY}"},
        {"OTP": "FOXTROT"},
    ],
)
def test_an_excerpt_shows_neither_code_nor_message_nor_key(body: Any) -> None:
    whole = json.dumps(body)
    compact = json.dumps(body, separators=(",", ":"))
    for text in (whole, compact, whole[:-1], compact[:-2], whole.replace("{", "{\n  "), f"ERROR {whole}"):
        for shown in (redacted_excerpt(text, KEY), str(unexpected(answer(200, text)))):
            assert "FOXTROT" not in shown
            assert KEY not in shown


def test_an_excerpt_shows_no_digits_that_could_be_a_code_and_is_short() -> None:
    excerpt = redacted_excerpt("<p>Your code 548921 for 12 " + "x" * 10_000, KEY)
    assert "548921" not in excerpt
    assert "12" in excerpt
    assert len(excerpt) <= 200


@pytest.mark.parametrize("name", ["qr", "reply", "lpa", "data", "esim", "note", "titles"])
@pytest.mark.parametrize(
    "value", ["FOXTROT", ["FOXTROT"], {"inner": "FOXTROT"}, {"status": {"x": "FOXTROT"}}]
)
def test_an_excerpt_quotes_only_what_says_how_it_went(name: str, value: Any) -> None:
    body = {"status": "active", "order_id": 4711, name: value}
    for text in (json.dumps(body), json.dumps([body]), json.dumps(body)[:-1], f"oh {json.dumps(body)}"):
        shown = str(unexpected(answer(201, text)))
        assert "FOXTROT" not in shown
        assert "4711" not in shown
        assert name in shown
    assert '"status": "active"' in str(unexpected(answer(201, body)))


def test_an_excerpt_of_a_page_is_what_people_read_there() -> None:
    page = "<html><head><style>p {a: b}</style></head><body class='x'><h1>Sign in</h1> to the network</body>"
    assert redacted_excerpt(page, KEY) == "Sign in to the network"


@pytest.mark.parametrize("status", [200, 400, 402, 404, 409, 429, 500])
@pytest.mark.parametrize(
    "body",
    [
        {"success": False, "message": "Your code is 482913"},
        {"success": False, "error": "already completed: G-482913"},
        {"error": {"text": ["482 913"]}, "detail": "code A7K482913"},
        {"482913": ["482913"]},
        "Your code is 482913",
    ],
)
def test_a_code_in_the_service_s_words_is_not_quoted(status: int, body: Any) -> None:
    error = error_of(status, body)
    for shown in (str(error), repr(error), str(vars(error))):
        assert "482913" not in shown
        assert "482 913" not in shown


def test_the_service_s_words_forge_no_line_and_act_on_no_terminal() -> None:
    error = error_of(409, {"error": "no\n2026-01-01 INFO bought\u202e\u001b[2J" + "x" * 10_000})
    for shown in (str(error), error.service_message):
        assert shown.isprintable()
        assert len(shown) < 700
    assert error_of(302, "", Location="http://[x\n").status_code == 302
    assert str(error_of(302, "", Location="http://a/\u001b[2J")).isprintable()


def test_the_service_s_words_lose_the_key_only() -> None:
    error = error_of(401, {"error": f"Invalid API key: {KEY}"})
    assert KEY not in str(error) + str(error.service_message)
    assert "Invalid API key: ***" in str(error)


def test_a_redirect_is_named_without_what_it_may_carry() -> None:
    error = error_of(302, "", Location=f"https://login.example/{KEY}/?token={KEY}&x=FOXTROT#FOXTROT")
    assert "login.example" in str(error)
    assert KEY not in str(error)
    assert "FOXTROT" not in str(error)


@pytest.mark.parametrize(
    "body",
    [
        {"success": False, "order_id": 1, "status": "completed", "otp": "548921"},
        {"success": False, "order_id": 1, "otp": "548921", "message": "Your code is 548921"},
        {"success": False, "activation_code": "SIM-548921"},
        {"success": False, "data": {"otp": "548921", "message": "Your code is 548921"}},
        {"success": False, "order": {"otp": "548921", "sms": ["Your code is 548921"]}},
        {"success": False, "otp": ["548921"]},
    ],
)
@pytest.mark.parametrize("status", [400, 500])
def test_a_code_in_an_error_s_body_is_not_quoted(status: int, body: Any) -> None:
    error = error_of(status, body)
    assert "548921" not in str(error)
    assert "548921" not in str(vars(error))


def test_a_refused_value_keeps_the_service_s_words_and_address() -> None:
    error = error_of(400, {"service_id": ["No such service."]})
    assert (error.field, error.status_code) == ("service_id", 400)
    assert (error.service_message, error.endpoint) == (
        "service_id: No such service.",
        "POST /api/v1/order/temporary/",
    )
