"""The codes of the contract, section 3."""

from enum import Enum

from messages.secrets import mask_text


class Code(Enum):
    """A result's code: the value on the wire, the message with a place for one word, the HTTP
    status.
    """

    OK = (200, "OK", 200)
    CREATED = (201, "Created", 200)
    PARAMETER = ("101.001002", "参数{}不符合规范", 400)
    IDENTITY = ("101.001401", "身份校验失败", 401)
    SERVER_NOT_OWNED = ("101.001013", "存在未知所属的云服务器，请重新选择云服务器", 400)
    SERVER_UNKNOWN = ("101.001033", "云服务器{}不存在", 400)
    SERVER_UNPAID = ("101.001014", "存在未付费类型的云服务器，请重新选择云服务器", 400)
    SERVER_STATE = ("101.001012", "存在未知状态的云服务器，请重新选择云服务器", 400)
    FAILED = ("101.001040", "操作失败", 400)
    IMAGE_UNKNOWN = ("101.003033", "镜像{}不存在", 400)
    IMAGE_UPDATE = ("101.003005", "更新镜像失败", 500)
    IMAGE_DELETE = ("101.003006", "删除镜像失败", 500)
    IMAGE_CREATE = ("101.003007", "创建自定义镜像失败", 400)
    IMAGE_STATE = ("101.003011", "虚机不能创建自定义镜像,状态:{}", 400)
    IMAGE_IN_USE = ("101.003015", '当前镜像无法删除，已关联云服务器"{}"', 400)
    IMAGE_CREATING = ("101.003016", "创建中的镜像不可进行修改", 400)
    IMAGE_NOT_PRIVATE = ("101.003017", "非私有镜像不可进行修改", 400)

    def __init__(self, wire: int | str, text: str, http: int) -> None:
        self.wire = wire
        self.text = text
        self.http = http

    def text_for(self, subject: str | None) -> str:
        """Return the message with its subject, which may be a word of the request's own."""
        return self.text.format(mask_text(subject) if subject else "")
