"""Error responses as services and proxies send them, and what each is taken for."""

import json
from pathlib import Path
from typing import Any

import pytest

from handlers.openstack.errors import (
    MAX_DETAIL,
    CloudRefusal,
    Conflict,
    ErrorResponse,
    Forbidden,
    QuotaExceeded,
)
from messages.errors import Ambiguous, Transient

FOLDER = Path(__file__).parents[1] / "fixtures" / "openstack_errors"
FIXTURES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
KINDS = {
    "quota": QuotaExceeded,
    "forbidden": Forbidden,
    "conflict": Conflict,
    "refused_by_cloud": CloudRefusal,
    "http_413": Transient,
    "http_429": Transient,
}


def error_of(answer: dict[str, Any], **changed: Any) -> Exception:
    fields = {**answer, **changed}
    response = ErrorResponse(fields["service"], fields["status"], fields["headers"], fields["body"])
    return response.as_error(mutating=True)


@pytest.mark.parametrize("name", FIXTURES)
def test_a_response_is_taken_for_what_it_is(name: str) -> None:
    answer = FIXTURES[name]
    error = error_of(answer)
    assert type(error) is KINDS[answer["reason"]]
    assert getattr(error, "reason", None) == answer["reason"]
    if isinstance(error, Transient) and "retry-after" in answer["headers"]:
        assert error.retry_after == float(answer["headers"]["retry-after"])


def test_each_kind_is_there_of_each_service_that_has_it() -> None:
    found = {(one["service"], one["status"], one["reason"]) for one in FIXTURES.values()}
    assert found >= {
        ("compute", 403, "quota"),
        ("compute", 403, "forbidden"),
        ("compute", 409, "conflict"),
        ("compute", 500, "quota"),
        ("compute", 413, "http_413"),
        ("compute", 413, "refused_by_cloud"),
        ("compute", 429, "http_429"),
        ("block_storage", 413, "quota"),
        ("block_storage", 413, "http_413"),
        ("block_storage", 413, "refused_by_cloud"),
        ("block_storage", 403, "forbidden"),
        ("network", 409, "quota"),
        ("network", 409, "conflict"),
        ("network", 403, "forbidden"),
        ("image", 413, "quota"),
        ("image", 413, "refused_by_cloud"),
        ("image", 403, "forbidden"),
        ("identity", 413, "refused_by_cloud"),
        ("identity", 403, "forbidden"),
    }


def test_a_text_counts_only_for_the_service_that_sends_it() -> None:
    """Nova's words are no quota from Cinder, Neutron's type none from Nova."""
    assert type(error_of(FIXTURES["nova-create-cores"], service="block_storage")) is Forbidden
    assert type(error_of(FIXTURES["neutron-create-port"], service="compute")) is Conflict
    assert type(error_of(FIXTURES["glance-image-properties"], service="compute")) is CloudRefusal


def test_a_page_is_told_as_its_text() -> None:
    error = error_of(FIXTURES["glance-image-properties"])
    told = "The limit has been exceeded on the number of allowed image properties. Attempted: 129, Maximum: 128"
    assert str(error) == f"HTTP 413: 413 Request Entity Too Large {told}"
    quoted = error_of(
        FIXTURES["glance-image-properties"], body="<p>schema &#x27;image&#x27; &lt;1&gt;</p>"
    )
    assert str(quoted) == "HTTP 413: schema 'image' <1>"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("", ""),
        ("null", "null"),
        ("[]", "[]"),
        ("{}", "{}"),
        ('{"error": "no"}', "no"),
        ("1" * 9000, "1" * MAX_DETAIL),
        ('{"forbidden": {"message": null}}', "None"),
        ('{"forbidden": 7}', '{"forbidden": 7}'),
        ("{", "{"),
        ("<" * 9000, "<" * MAX_DETAIL),
    ],
)
def test_a_body_of_whatever_shape_is_told_as_it_is(body: str, detail: str) -> None:
    for service, status in (
        ("compute", 403),
        ("network", 409),
        ("block_storage", 413),
        ("image", 413),
    ):
        response = ErrorResponse(service, status, {}, body)
        assert response.detail == detail
        assert isinstance(response.as_error(mutating=True), CloudRefusal)


def test_a_server_error_may_have_done_what_it_was_asked() -> None:
    for status, late in ((500, False), (502, True), (503, False), (504, True)):
        error = ErrorResponse("compute", status, {"retry-after": "7"}, "x").as_error(mutating=True)
        assert isinstance(error, Ambiguous)
        assert (error.may_land_late, error.retry_after) == (late, 7.0)
        assert type(ErrorResponse("compute", status, {}, "x").as_error(mutating=False)) is Transient
