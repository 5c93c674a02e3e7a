"""The table of routes: the API document's URLs, and the operation that each becomes."""

from enum import Enum

from messages.commands import Operation
from messages.record import record


class BodyIs(Enum):
    """The use of a request's body."""

    #: It is not read.
    NOTHING = "nothing"
    #: The fields of a form, or of a JSON object, count as parameters beside those of the query.
    PARAMETERS = "parameters"
    #: The command's field `body`, as it is.
    BODY = "body"
    #: The command's field `order`, as it is.
    ORDER = "order"


@record
class Route:
    """A URL. Its placeholders and the parameters of `query` are the command's fields."""

    method: str
    path: str
    operation: Operation
    query: tuple[str, ...] = ()
    body: BodyIs = BodyIs.NOTHING


_PAGES = ("searchValue", "sortField", "sortOrder", "page", "pageSize")

#: The first one whose path matches is taken: what is more special stands first.
ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/servers/{server_id}/tags", Operation.SERVER_TAGS_LIST),
    Route(
        *("POST", "/v1/servers/{server_id}/tags", Operation.SERVER_TAGS_UPDATE),
        query=("tags",),
        body=BodyIs.PARAMETERS,
    ),
    Route(*("POST", "/v1/servers/{server_id}/action", Operation.SERVER_ACTION), body=BodyIs.BODY),
    Route("POST", "/v1/servers/action", Operation.SERVER_BATCH_ACTION, body=BodyIs.BODY),
    Route(
        *("GET", "/v1/servers/{pageNo}/{pageSize}", Operation.SERVER_LIST),
        query=("searchField", "pageNo", *_PAGES),
    ),
    Route("GET", "/v1/servers/{server_id}", Operation.SERVER_SHOW),
    # The document shows its parameters as a JSON object: one in the body is read, too.
    Route(
        *("GET", "/v1/images", Operation.IMAGE_LIST),
        query=("visibility", *_PAGES),
        body=BodyIs.PARAMETERS,
    ),
    Route("GET", "/v1/images/private", Operation.IMAGE_LIST_PRIVATE, query=("tag",)),
    Route("POST", "/v1/images/action/delete", Operation.IMAGE_BATCH_DELETE, body=BodyIs.BODY),
    Route("POST", "/v1/images/delete", Operation.IMAGE_BATCH_DELETE, body=BodyIs.BODY),
    Route("GET", "/v1/images/{image_id}", Operation.IMAGE_SHOW),
    Route("DELETE", "/v1/images/{image_id}", Operation.IMAGE_DELETE),
    Route("PATCH", "/v1/images/{image_id}", Operation.IMAGE_UPDATE, body=BodyIs.BODY),
    Route("POST", "/v1/orders/plan", Operation.ORDER_PLAN, body=BodyIs.ORDER),
    Route("GET", "/v1/orders/{key:path}", Operation.ORDER_SHOW),
)
