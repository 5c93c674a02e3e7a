"""Commands, by their operation."""

from collections.abc import Mapping

from messages import images, servers
from messages.commands import MAX_BATCH, Force, Operation, Power
from messages.paging import MAX_PAGE_SIZE
from messages.shapes.schema import (
    ANYTHING,
    OPTIONAL_WORD,
    UUID,
    WORD,
    Schema,
    described,
    just_one,
    loose,
    nullable,
    number,
    thing,
    things,
    words,
)

#: The headers of a request that are read.
HEADERS: Schema = thing(
    **{
        "x-ecs-deadline": described(
            {"type": ["number", "string"]}, "Unix seconds; past it nothing is begun"
        ),
        "traceparent": described(
            {"type": "string"}, "W3C trace context, continued in what is published"
        ),
        "tracestate": {"type": "string"},
    }
)
_POWERS = [power.value for power in Power]
_FORCE = thing(type=loose([force.value for force in Force], any_case=True))
_ORDER = loose(("ascend", "descend"), any_case=True)


def _actions() -> Schema:
    text: Schema = {"type": "string", "maxLength": images.MAX_TEXT}
    metadata = nullable(
        {"type": "object", "additionalProperties": text, "maxProperties": images.MAX_PROPERTIES}
    )
    described_image = thing(("name", "description"), name=WORD, description=text, metadata=metadata)
    fields: dict[str, Schema] = {
        Power.START.value: described(nullable({"type": "object"}), "needs SHUTOFF"),
        Power.STOP.value: described(nullable(_FORCE), "needs ACTIVE, and billing information"),
        Power.REBOOT.value: described(nullable(_FORCE), "SOFT where no type is given"),
        "os-getVNCConsole": thing(("type",), type=WORD),
        "createImage": described_image,
    }
    return just_one(fields, fields)


def _batches() -> Schema:
    named = thing(
        ("servers",),
        servers=things(thing(("id",), id=UUID), 1, MAX_BATCH),
        type=_FORCE["properties"]["type"],
    )
    start = thing(("servers",), servers=named["properties"]["servers"])
    fields = {power: start if power == Power.START.value else named for power in _POWERS}
    return just_one(fields, fields)


def _page(number_name: str) -> dict[str, Schema]:
    return {
        number_name: described(
            nullable(number(1, 10**12 - 1)), "from 1; the first where it is missing"
        ),
        "pageSize": described(
            nullable(number(1, MAX_PAGE_SIZE)), f"at most {MAX_PAGE_SIZE}, 10 where it is missing"
        ),
        "sortOrder": described(_ORDER, "descend where it is missing"),
    }


def _patch() -> Schema:
    paths = [f"/{field.value}" for field in images.PatchedField]
    change = thing(
        ("op", "path"), op=loose(("add", "replace", "remove")), path=loose(paths), value=ANYTHING
    )
    return things(change, 1, images.MAX_PATCH)


_SERVER, _IMAGE = {"server_id": UUID}, {"image_id": UUID}
_FIELDS: Mapping[Operation, tuple[dict[str, Schema], dict[str, Schema]]] = {
    # What must be there, and what may be.
    Operation.SERVER_ACTION: ({**_SERVER, "body": _actions()}, {}),
    Operation.SERVER_BATCH_ACTION: ({"body": _batches()}, {}),
    Operation.SERVER_LIST: (
        {},
        {
            **_page("pageNo"),
            "page": described(nullable(number(1, 10**12 - 1)), "another name of `pageNo`"),
            "sortField": described(
                loose((*servers.SORT_FIELDS, "uuid", "ip")),
                "`uuid` and `ip`: the `searchField` where that is absent",
            ),
            "searchField": loose(servers.SEARCH_FIELDS),
            "searchValue": described(OPTIONAL_WORD, "of status: a status, or `unusual`"),
        },
    ),
    Operation.SERVER_SHOW: (_SERVER, {}),
    Operation.SERVER_TAGS_LIST: (_SERVER, {}),
    Operation.SERVER_TAGS_UPDATE: (
        {
            **_SERVER,
            "tags": described(
                {"type": "string"}, "the whole new set, comma separated; empty: none"
            ),
        },
        {},
    ),
    Operation.IMAGE_LIST: (
        {},
        {
            **_page("page"),
            "sortField": loose(images.SORT_FIELDS),
            "visibility": loose(images.VISIBILITIES),
            "searchValue": described(OPTIONAL_WORD, "part of the name, or the id"),
        },
    ),
    Operation.IMAGE_LIST_PRIVATE: ({"tag": WORD}, {}),
    Operation.IMAGE_SHOW: (_IMAGE, {}),
    Operation.IMAGE_DELETE: (_IMAGE, {}),
    Operation.IMAGE_BATCH_DELETE: (
        {"body": thing(("images",), images=things(thing(("id",), id=UUID), 1, images.MAX_BATCH))},
        {},
    ),
    Operation.IMAGE_UPDATE: (
        {**_IMAGE, "body": described(_patch(), "a JSON patch; a field's last change counts")},
        {},
    ),
    Operation.ORDER_PLAN: (
        {"order": described({"type": "object", "minProperties": 1}, "an order of any kind")},
        {},
    ),
}


def _request(operation: Operation) -> Schema:
    needed, more = _FIELDS[operation]
    return thing(
        ("operation", *needed),
        operation=words([operation]),
        tenant_id=described(
            OPTIONAL_WORD, "a project's id or name; where tokens are asked for, theirs decides"
        ),
        user_id=described(OPTIONAL_WORD, "the token's `sub`"),
        token=described(ANYTHING, "a signed token, where they are asked for"),
        **needed,
        **more,
    )


REQUESTS: Mapping[Operation, Schema] = {operation: _request(operation) for operation in Operation}
