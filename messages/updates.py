"""Status updates (contract 6), and the text that is shown beside each status."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from messages.fields import Answer
from messages.record import record

#: The API document's table of statuses.
STATUS_WORDS = {
    "active": "运行中",
    "deleted": "已删除",
    "error": "错误/创建失败",
    "paused": "暂停",
    "soft_deleted": "软删除",
    "stopped": "停止",
    "shutoff": "已关机",
    "build": "创建中",
    "reboot": "软重启中",
    "hard_reboot": "硬重启中",
    "resize": "变更规格中",
    "rebuild": "重置系统中",
    "password": "重置密码中",
}
#: The statuses that it lacks.
_MORE_STATUS_WORDS = {
    "verify_resize": "变更规格待确认",
    "revert_resize": "回退规格中",
    "suspended": "已挂起",
    "migrating": "迁移中",
    "shelved": "已搁置",
    "shelved_offloaded": "已搁置",
    "rescue": "救援模式",
    "unknown": "未知",
}
#: The API document's table of task states; a known one wins over the status.
TASK_WORDS = {"powering-on": "开机中", "powering-off": "关机中", "deleting": "删除中"}

#: The API document's table of images' statuses, and the ones that it lacks.
IMAGE_WORDS = {
    "queued": "创建中",
    "saving": "创建中",
    "killed": "创建失败/错误",
    "active": "可用",
    "pending_delete": "删除中",
    "importing": "创建中",
    "uploading": "创建中",
    "deleted": "已删除",
    "deactivated": "已停用",
}


class OrderStatus(StrEnum):
    """The statuses of an order."""

    ACCEPTED = "accepted"
    VALIDATING = "validating"
    CREATING = "creating"
    RESIZING = "resizing"
    EXTENDING = "extending"
    CONFIRMING = "confirming"
    REVERTING = "reverting"
    STARTING = "starting"
    STOPPING = "stopping"
    DELETING = "deleting"
    WAITING_RETRY = "waiting_retry"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


ORDER_WORDS = {
    OrderStatus.ACCEPTED: "已受理",
    OrderStatus.VALIDATING: "校验中",
    OrderStatus.CREATING: "创建中",
    OrderStatus.RESIZING: "变更规格中",
    OrderStatus.EXTENDING: "扩容磁盘中",
    OrderStatus.CONFIRMING: "确认变更中",
    OrderStatus.REVERTING: "回退中",
    OrderStatus.STARTING: "开机中",
    OrderStatus.STOPPING: "关机中",
    OrderStatus.DELETING: "删除中",
    OrderStatus.WAITING_RETRY: "等待重试",
    OrderStatus.SUCCEEDED: "成功",
    OrderStatus.FAILED: "失败",
}


def server_words(status: str, task_state: str | None) -> str | None:
    """Return the document's text for a server's state; None where it has none."""
    if task_state is not None and (words := TASK_WORDS.get(task_state.lower())):
        return words
    return STATUS_WORDS.get(status.lower()) or _MORE_STATUS_WORDS.get(status.lower())


def is_unusual(status: str) -> bool:
    """Tell whether a server is in ERROR, or in a status that the API document does not know."""
    return status.lower() == "error" or status.lower() not in STATUS_WORDS


class StatusUpdate(Answer):
    """The course of a server, an image or an order. The last update of a resource for a request is
    final.
    """

    resource: Literal["server", "image", "order"]
    id: str
    operation: str = Field(description="the request's; of orders `order.` and the type")
    action: str | None
    status: str = Field(
        description="OpenStack's own word of a server or an image; of an order: "
        + ", ".join(OrderStatus)
    )
    translation: str | None
    final: bool = Field(description="the last one of this resource for this request")
    message_id: str | None = Field(description="the request's")
    tenant_id: str | None = Field(
        description="the id of the project that it belongs to; null where that is not known"
    )
    user_id: str | None = Field(
        description="the request's `user_id`, an order's `userId`; null where it names none"
    )
    time: Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
    progress: int = Field(0, ge=0, le=100, description="of orders; never falls")
    flow_id: str | None = Field(None, alias="consoleOrderFlowId", description="of orders")
    instance_id: str | None = Field(None, alias="instanceId", description="of orders")


@record
class Update:
    """A status update, without what the request that it belongs to adds (operation, message id,
    user, time).

    `order` holds the fields that only updates of an order carry. `tenant_id` is the project that
    the resource belongs to, where that may be another than the request's; None: the request's own.
    """

    resource: Literal["server", "image", "order"]
    id: str
    action: str | None
    status: str
    translation: str | None
    final: bool = False
    order: dict[str, Any] | None = None
    tenant_id: str | None = None

    def on_wire(
        self,
        operation: str,
        *,
        message_id: str | None,
        tenant_id: str | None,
        user_id: str | None,
    ) -> StatusUpdate:
        """Return the update as it is published; message id and user are the request's.

        `tenant_id` is the request's project, which the update's own takes precedence over; None:
        not known, or several.
        """
        return StatusUpdate(
            resource=self.resource,
            id=self.id,
            operation=operation,
            action=self.action,
            status=self.status,
            translation=self.translation,
            final=self.final,
            message_id=message_id,
            tenant_id=self.tenant_id or tenant_id,
            user_id=user_id,
            time=wire_time(),
            **(self.order or {}),
        )


def server_update(
    server_id: str, action: str | None, status: str, task_state: str | None, *, final: bool
) -> Update:
    """Return the update of a server: its task while one is under way, else its status."""
    word = task_state if task_state is not None and not final else status
    return Update("server", server_id, action, word, server_words(status, task_state), final)


def image_words(status: str) -> str | None:
    """Return the document's text for an image's status; None where it has none."""
    return IMAGE_WORDS.get(status.lower())


def image_update(image_id: str, action: str | None, status: str, *, final: bool) -> Update:
    """Return the update of an image: Glance's status."""
    return Update("image", image_id, action, status, image_words(status), final)


def wire_time(now: datetime | None = None) -> str:
    """Return a time in UTC with milliseconds, as `2026-11-23T10:00:00.123Z`."""
    return (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
