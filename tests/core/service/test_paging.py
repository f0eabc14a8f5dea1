"""Lists that say that they go on: what they do not show may be there all the same."""

from __future__ import annotations

from typing import Any

import pytest
from requests_mock import Mocker
from rigs.offline import address, mock_catalogue
from rigs.rooms import settings_of

from smsverify import NotAvailableError, SmsVerifyHook
from smsverify._service.paging import rows_left_out

LAST_PAGES: list[dict[str, Any]] = [
    {"count": 20, "next": None, "previous": "http://x/?page=1"},
    {"count": "20", "has_more": False, "next_cursor": ""},
    {"total": 57.5, "has_more": "false"},
    {"count": 3, "page": 2, "pages": 2},
    {"meta": {"current_page": 3, "last_page": 3}, "links": {"next": None, "prev": "http://x/?page=2"}},
    {"meta": []},
    {"total": None, "pages": {"next": "http://x"}},
]
OTHER_PAGES: list[tuple[dict[str, Any], int]] = [
    ({"count": 21, "next": "http://x/?page=2"}, 1),
    ({"count": "120"}, 100),
    ({"next": "http://x/?page=2"}, 1),
    ({"nextPageUrl": "http://x/?page=2"}, 1),
    ({"has_more": True}, 1),
    ({"page": 1, "pages": 3}, 1),
    ({"total_pages": 2}, 1),
    ({"meta": {"current_page": 1, "last_page": 3, "total": 45}}, 25),
    ({"meta": {"pagination": {"total": 45}}}, 25),
    ({"_links": {"next": {"href": "/orders/?page=2"}}}, 1),
]


@pytest.mark.parametrize("envelope", LAST_PAGES)
def test_a_list_that_does_not_say_that_it_goes_on_leaves_out_nothing(envelope: dict[str, Any]) -> None:
    assert rows_left_out([envelope], 20) == 0


@pytest.mark.parametrize(("envelope", "more"), OTHER_PAGES)
def test_a_list_that_says_that_it_goes_on_leaves_out_so_many_at_least(
    envelope: dict[str, Any], more: int
) -> None:
    assert rows_left_out([{}, envelope], 20) == more


def test_what_stands_on_another_page_is_no_proof_that_it_is_not_sold_and_is_logged_once(
    offline: SmsVerifyHook, requests_mock: Mocker, caplog: pytest.LogCaptureFixture
) -> None:
    mock_catalogue(requests_mock)
    row = {"service_id": 1, "name": "X", "price": 0.4}
    page = {"success": True, "data": {"services": [row], "total": 31}, "next": "http://x/?page=2"}
    requests_mock.get(address("services/temporary/"), json=page)
    for _ in range(2):
        with pytest.raises(NotAvailableError, match="Entries that were not read: at least 30"):
            offline.order("temporary", service="Y")
        offline.list_services("temporary")
    (logged,) = [text for text in caplog.messages if "there are more" in text]
    assert "services/temporary/ answered 1 rows" in logged


def test_that_the_list_of_orders_shows_the_fifty_newest_is_documented(
    offline: SmsVerifyHook, requests_mock: Mocker, caplog: pytest.LogCaptureFixture
) -> None:
    hook = SmsVerifyHook(**settings_of(offline))
    rows = [{"order_id": n, "service": "X", "status": "completed"} for n in range(100, 150)]
    for shown in (rows, rows[:20]):
        requests_mock.get(address("orders/"), json={"count": 120, "orders": shown})
        assert len(hook.list_orders()) == len(shown)
    assert [text for text in caplog.messages if "there are more" in text] == [caplog.messages[-1]]
