"""The console's questions and image requests: what is read, what is refused, and that nothing else
can happen.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.commands import CreateImage, Operation, Page, PatchedField, Search, Sort, task_of
from messages.errors import Refused
from messages.operations import parse_command

SERVER = "616fb98f-46ca-475e-917e-2563e5a8cd19"


def read(operation: str, **fields: Any) -> Any:
    return task_of(parse_command({"operation": operation, **fields}, operation))


def refused(operation: str, **fields: Any) -> str | None:
    with pytest.raises(Refused) as caught:
        read(operation, **fields)
    return caught.value.subject


NEWEST = Sort("createTime", descending=True)


def test_a_list_without_wishes_is_the_first_ten_newest_first() -> None:
    blank = {"pageNo": None, "searchValue": "  ", "sortField": "", "sortOrder": ""}
    servers = read("server.list", searchField=" ", **blank)
    assert (servers.page, servers.sort, servers.search) == (Page(1, 10), NEWEST, None)
    images = read("image.list")
    assert (images.page, images.sort) == (Page(1, 10), NEWEST)
    assert (images.search, images.visibility) == (None, None)


def test_a_list_with_wishes() -> None:
    asked = {
        "pageNo": "2",
        "pageSize": 100,
        "searchField": "ip",
        "searchValue": "10.1",
        "sortOrder": "ASCEND",
    }
    servers = read("server.list", **asked)
    assert (servers.page, servers.search) == (Page(2, 100), Search("ip", "10.1"))
    assert servers.sort == Sort("createTime", descending=False)
    assert read("image.list_private", tag=" ECS ").tag == "ECS"


@pytest.mark.parametrize(
    ("fields", "number"),
    [
        ({"page": 2}, 2),
        ({"page": " 3 "}, 3),
        ({"page": "2", "pageNo": 2}, 2),
        ({"page": None, "pageNo": "4"}, 4),
        ({"page": 5, "pageNo": None}, 5),
    ],
)
def test_page_is_another_name_of_page_no(fields: dict[str, Any], number: int) -> None:
    assert read("server.list", **fields).page.number == number


@pytest.mark.parametrize(
    ("fields", "search", "sort"),
    [
        ({"sortField": "status", "searchValue": "unusual"}, Search("status", "unusual"), NEWEST),
        ({"sortField": " status ", "searchValue": " Unusual"}, Search("status", "Unusual"), NEWEST),
        ({"sortField": "uuid", "searchValue": SERVER}, Search("uuid", SERVER), NEWEST),
        (
            {"sortField": "ip", "searchValue": "10.1", "sortOrder": "ascend"},
            Search("ip", "10.1"),
            Sort("createTime", descending=False),
        ),
        ({"sortField": "ip"}, None, NEWEST),
        # What is said in the search's own field is not said again by the order.
        (
            {"sortField": "status", "searchField": "name", "searchValue": "unusual"},
            Search("name", "unusual"),
            Sort("status", descending=True),
        ),
        (
            {"sortField": "status", "searchValue": "active"},
            Search(None, "active"),
            Sort("status", descending=True),
        ),
        (
            {"sortField": "name", "searchValue": "web"},
            Search(None, "web"),
            Sort("name", descending=True),
        ),
    ],
)
def test_the_key_of_a_search_may_come_as_the_order(
    fields: dict[str, Any], search: Search | None, sort: Sort
) -> None:
    task = read("server.list", **fields)
    assert (task.search, task.sort) == (search, sort)


def test_a_page_is_a_part() -> None:
    assert [list(Page(number, 2).of("abcde")) for number in (1, 3, 4)] == [["a", "b"], ["e"], []]


@pytest.mark.parametrize(
    ("fields", "subject"),
    [
        ({"pageNo": ""}, "pageNo"),
        ({"pageNo": " \t"}, "pageNo"),
        ({"pageSize": ""}, "pageSize"),
        ({"pageNo": "0"}, "pageNo"),
        ({"pageNo": -1}, "pageNo"),
        ({"pageNo": True}, "pageNo"),
        ({"page": 1, "pageNo": 2}, "page"),
        ({"page": "x"}, "page"),
        ({"page": 0, "pageNo": 1}, "page"),
        ({"sortField": "ip", "searchField": "name"}, "sortField"),
        ({"sortField": 7}, "sortField"),
        ({"pageNo": 1.5}, "pageNo"),
        ({"pageSize": 101}, "pageSize"),
        ({"pageSize": "ten"}, "pageSize"),
        ({"searchField": "host"}, "searchField"),
        ({"searchValue": {"$ne": 1}}, "searchValue"),
        ({"sortField": "id; DROP TABLE"}, "sortField"),
        ({"sortOrder": "down"}, "sortOrder"),
    ],
)
def test_wrong_wishes_are_named(fields: dict[str, Any], subject: str) -> None:
    assert refused("server.list", **fields) == subject


def test_tags_are_trimmed_and_counted_once() -> None:
    task = read("server.tags.update", server_id=SERVER, tags=" a ,b,a")
    assert (task.server_id, task.tags) == (SERVER, ("a", "b"))
    assert read("server.tags.update", server_id=SERVER, tags=" ").tags == ()
    for wrong in (
        None,
        ["a"],
        "a,,b",
        ",",
        "a/b",
        "x" * 61,
        ",".join(map(str, range(51))),
        "a\x07",
    ):
        assert refused("server.tags.update", server_id=SERVER, tags=wrong) == "tags"


def test_an_image_to_be_made() -> None:
    body = {"createImage": {"name": " n ", "description": "", "metadata": {"k": "v"}}}
    assert read("server.action", server_id=SERVER, body=body) == CreateImage(
        SERVER, "n", {"k": "v", "description": ""}
    )


@pytest.mark.parametrize(
    ("options", "subject"),
    [
        ({"description": "x"}, "name"),
        ({"name": " ", "description": "x"}, "name"),
        ({"name": "x"}, "description"),
        ({"name": "x" * 256, "description": "x"}, "name"),
        ({"name": "x", "description": "y" * 256}, "description"),
        *(
            ({"name": "x", "description": "y", "metadata": metadata}, "metadata")
            for metadata in (
                {"Owner": "z"},
                {"img_signature_hash": "z"},
                {"ecs_request": "z"},
                {"": "z"},
                {"k": 1},
                ["k"],
                {"名": "z"},
                {"a/b": "z"},
                {"k" * 256: "z"},
                {str(n): "v" for n in range(101)},
            )
        ),
    ],
)
def test_an_image_that_cannot_be_made(options: dict[str, Any], subject: str) -> None:
    assert refused("server.action", server_id=SERVER, body={"createImage": options}) == subject


def test_a_patch_is_read_and_its_last_word_counts() -> None:
    body = [
        {"op": "add", "path": "/name", "value": "a"},
        {"op": "replace", "path": "/name", "value": "b"},
        {"op": "remove", "path": "/systemType"},
    ]
    task = read("image.update", image_id=SERVER, body=body)
    assert task.image_id == SERVER
    assert task.values == {PatchedField.NAME: "b", PatchedField.SYSTEM_TYPE: None}


@pytest.mark.parametrize(
    ("body", "subject"),
    [
        ([], "body"),
        ({}, "body"),
        ([{"op": "add", "path": "/owner", "value": "x"}], "path"),
        ([{"op": "add", "path": "/description/x", "value": "x"}], "path"),
        ([{"path": "/name", "value": "x"}], "op"),
        ([{"op": "remove", "path": "/name"}], "op"),
        ([{"op": "test", "path": "/name", "value": "x"}], "op"),
        ([{"op": "add", "path": "/name", "value": 1}], "value"),
        ([{"op": "add", "path": "/name"}], "value"),
        ([{"op": "add", "path": "/system", "value": "x" * 256}], "value"),
        (["add"], "body"),
    ],
)
def test_a_patch_that_is_refused(body: Any, subject: str) -> None:
    assert refused("image.update", image_id=SERVER, body=body) == subject


def test_several_images() -> None:
    ids = [{"id": SERVER.upper()}]
    assert read("image.batch_delete", body={"images": ids}).image_ids == (SERVER,)
    assert refused("image.batch_delete", body={"images": [*ids, {"id": SERVER}]}) == "images"
    assert refused("image.batch_delete", body={"images": []}) == "images"
    assert refused("image.batch_delete", body={"images": [{"id": "x"}]}) == "id"


_WORDS = st.sampled_from(
    [
        "body",
        "name",
        "tags",
        "images",
        "servers",
        "pageNo",
        "pageSize",
        "id",
        "op",
        "path",
        "value",
        "metadata",
        "createImage",
        "description",
        "searchField",
        "searchValue",
        "sortField",
        "server_id",
        "image_id",
        "tag",
    ]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(SERVER) | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(list(Operation)), st.dictionaries(_WORDS, _JSON, max_size=6))
def test_anything_is_read_or_refused(operation: Operation, fields: dict[str, Any]) -> None:
    try:
        parse_command({"operation": operation.value, **fields}, operation.value)
    except Refused as refused:
        subject = refused.subject
    else:
        return
    assert subject, "a refusal names what is wrong"
