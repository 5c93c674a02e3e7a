"""The console's texts in Chinese, by their English wording.

Texts that other parts of the worker write (why something waits, errors of the cloud and the broker)
are shown as they are, in English: the log and the command line have the same words.
"""

LANGUAGES = {"en": "English", "zh": "中文"}


def translate(language: str, text: str) -> str:
    """Return a text in a language; as it is where no translation is known."""
    return _CHINESE.get(text, text) if language == "zh" else text


_CHINESE = {
    # Frame
    "ECS operations": "ECS 运维",
    "Skip to the content": "跳到正文",
    "Pages": "页面",
    "Overview": "概览",
    "Requests": "请求",
    "Waiting": "等待中",
    "Dead letters": "死信",
    "Batches": "批次",
    "Pauses": "暂停",
    "Audit record": "审计记录",
    "Language": "语言",
    "Theme": "主题",
    "Automatic": "自动",
    "Light": "浅色",
    "Dark": "深色",
    "Log in": "登录",
    "Log out": "退出",
    "Enter": "进入",
    "Keyboard shortcuts": "键盘快捷键",
    "Search for a request": "查找请求",
    "Show or hide this list": "显示或隐藏此列表",
    "All times are UTC.": "所有时间均为 UTC。",
    "As of": "截至",
    "Refresh": "刷新",
    "Stop live updates": "停止实时更新",
    "Show live again": "恢复实时更新",
    "This page could not be brought up to date. What it shows may be old.": "页面未能更新，所示内容可能已过时。",
    "None.": "无。",
    "unknown": "未知",
    "any": "任意",
    "ago": "前",
    "Show": "显示",
    "Search": "查找",
    "Filter": "筛选",
    "Preview": "预览",
    "Newest first": "最新的在前",
    "Only the newest are shown; filter to see others.": "仅显示最新的；请筛选以查看其他。",
    "more are not shown.": "条未显示。",
    # Login
    "Access token": "访问令牌",
    "A bearer token of the identity provider. It must have this role among realm_access.roles:": (
        "身份提供方签发的 Bearer 令牌，其 realm_access.roles 中必须有此角色："
    ),
    "It is kept in cookies of this browser until it expires; the server keeps nothing.": (
        "令牌保存在本浏览器的 Cookie 中，直至过期；服务器不保存任何内容。"
    ),
    "Open the address that the gateway printed when it started, on the gateway's own machine:": (
        "请在网关所在机器上打开网关启动时打印的地址："
    ),
    "Each address works once. When it has been used, the gateway prints the next one.": (
        "每个地址只能使用一次，用过之后网关会打印下一个。"
    ),
    "Your name, for the audit record": "您的姓名（写入审计记录）",
    "Nobody verifies it here: senders are trusted (ECS_TRUST_PUBLISHERS).": (
        "此处不验证姓名：发送方受信任（ECS_TRUST_PUBLISHERS）。"
    ),
    "The gateway's system user is recorded beside it.": "网关的系统用户会一并记录。",
    "Your session has expired. Log in again.": "会话已过期，请重新登录。",
    "The token is not valid here: it is forged, of another issuer or audience, or no access token.": (
        "令牌在此无效：系伪造、签发者或受众不符，或不是访问令牌。"
    ),
    "The token is valid, but has not the role of operators.": "令牌有效，但没有运维人员的角色。",
    "Nobody can log in now: the keys that tokens are verified with cannot be fetched.": (
        "现在无法登录：取不到验证令牌所用的密钥。"
    ),
    "The console can only be used from the gateway's own machine, without a proxy in between.": (
        "控制台只能在网关所在机器上使用，中间不能有代理。"
    ),
    "This address was used before. Each works once; the gateway has printed a new one.": (
        "此地址已用过。每个地址只能用一次；网关已打印新的地址。"
    ),
    "Give a name for the audit record, of printable characters.": "请填写用于审计记录的姓名（可打印字符）。",
    "The console is off": "控制台未启用",
    "The console needs the workers' configuration, and this is wrong with it:": (
        "控制台需要 worker 的配置，其中有误："
    ),
    "The console shows the workers' journal, and none is set for this gateway.": (
        "控制台显示 worker 的记录库（journal），而此网关尚未设置。"
    ),
    "Set ECS_JOURNAL_URL to the same database as for the workers, and start the gateway again.": (
        "请设置与 worker 相同的 ECS_JOURNAL_URL，然后重新启动网关。"
    ),
    # Problems
    "Not done": "未执行",
    "Not found": "未找到",
    "There is no such page.": "没有这个页面。",
    "This page cannot be asked for so.": "不能以此方式访问该页面。",
    "This is no form of the console.": "这不是控制台的表单。",
    "The form is too large.": "表单过大。",
    "The form was not sent by a page of this console. Nothing was done.": (
        "表单并非由本控制台的页面提交，未执行任何操作。"
    ),
    "An error that nobody foresaw. The gateway's log has it: console.unforeseen.": (
        "发生未预料的错误，详见网关日志：console.unforeseen。"
    ),
    "The journal cannot be used now.": "记录库（journal）现在无法使用。",
    "There is no such state.": "没有这种状态。",
    "This is no time; an example is 2026-11-23T10:00.": "这不是时间；例如 2026-11-23T10:00。",
    "This is no duration; examples are 90s, 30m, 2h and 1d.": "这不是时长；例如 90s、30m、2h、1d。",
    "Choose at least one kind.": "请至少选择一类。",
    "None of these kinds is paused.": "所选类别均未暂停。",
    "Give a reason: the audit record keeps it.": "请填写原因：它会写入审计记录。",
    "The reason must be a line of at most 500 printable characters.": "原因须为一行，最多 500 个可打印字符。",
    # Overview
    "What needs attention": "需要处理",
    "What could not be found out": "未能查明",
    "Nothing stands still.": "一切运行正常。",
    "messages wait": "条消息等待",
    "requests under way": "个请求进行中",
    "dead letters": "条死信",
    "workers alive": "个 worker 存活",
    "kinds paused": "类已暂停",
    "Dependencies": "依赖",
    "reachable": "可达",
    "down": "不可用",
    "told by": "来源",
    "Paused": "已暂停",
    "Kind": "类别",
    "Kinds": "类别",
    "Since": "自",
    "Until": "至",
    "By": "操作人",
    "Reason": "原因",
    "resumed by an operator": "由运维人员恢复",
    "until an operator resumes it": "直到运维人员恢复",
    "Queues": "队列",
    "Queue": "队列",
    "Ready": "待取",
    "Held by workers": "worker 持有",
    "Consumers": "消费者",
    "Oldest message": "最早的消息",
    "In, per second": "每秒进入",
    "Done, per second": "每秒完成",
    "State": "状态",
    "stands still": "停滞",
    "goes on at": "继续于",
    "Workers": "Worker",
    "Worker": "Worker",
    "Version": "版本",
    "Last sign of life": "最近心跳",
    "Problems": "问题",
    "alive": "存活",
    "silent": "无响应",
    "ended": "已结束",
    "dead": "已死",
    "consumes": "消费中",
    "does not consume": "未消费",
    "held": "持有",
    "not begun": "未开始",
    "No worker has told of itself within a day.": "一天之内没有 worker 报告过自身状态。",
    "Requests under way": "进行中的请求",
    "Tenant": "租户",
    "Number": "数量",
    "Oldest": "最早",
    "Dead letters by cause": "死信（按原因）",
    "Code": "代码",
    "Error": "错误",
    "running": "进行中",
    "waits for its turn at a server": "等待轮到该服务器",
    "waits for its next attempt": "等待下一次尝试",
    "waits for the cloud": "等待云平台",
    "waits for a worker": "等待 worker",
    "answered, being published": "已有结果，正在发布",
    # Requests
    "One request: message_id, orderId, flowId or key": "单个请求：message_id、orderId、flowId 或键",
    "It is looked for in the journal, the queues, the retry queues and the dead letters.": (
        "将在记录库（journal）、队列、重试队列和死信中查找。"
    ),
    "Operation": "操作",
    "Tenant (project id)": "租户（项目 id）",
    "Received since (UTC)": "接收时间起（UTC）",
    "Request": "请求",
    "Result": "结果",
    "Received": "接收时间",
    "waits": "等待",
    "done": "已完成",
    "settled": "已发布",
    "Age": "时长",
    "Waits for": "等待什么",
    "Goes on": "继续于",
    "behind": "排在其后：",
    "Requests that a worker has begun and that have no result yet, the oldest first, and what each waits for.": (
        "worker 已开始但尚无结果的请求（最早的在前），以及各自在等待什么。"
    ),
    # Pauses
    "A paused kind is not begun by any worker: its messages wait in their queue. What has begun goes on.": (
        "暂停的类别不会被任何 worker 开始：消息在队列中等待。已开始的继续进行。"
    ),
    "Paused now": "当前暂停",
    "Pause": "暂停",
    "Resume": "恢复",
    "For (90s, 30m, 2h, 1d; empty: until resumed)": "时长（90s、30m、2h、1d；留空则直到恢复）",
    "For": "时长",
    "reads": "读取",
    "servers": "服务器",
    "images": "镜像",
    "orders": "订单",
    "No worker begins such requests any more: their senders wait, and commands may run into their time limit.": (
        "worker 不再开始此类请求：发送方需等待，命令可能超时。"
    ),
    "Nothing has been done yet. This will be done:": "尚未执行任何操作。将执行：",
    "Back, without doing it": "返回，不执行",
    "Paused. Every worker stops within a few seconds.": "已暂停。各 worker 会在几秒内停止。",
    "Resumed. Every worker goes on within a few seconds.": "已恢复。各 worker 会在几秒内继续。",
    "Cancelled. The order is answered as such when a worker takes it.": "已取消。worker 取到该订单时会如此答复。",
    "Stopping: messages under way are finished, nothing more is begun.": (
        "正在停止：进行中的消息会处理完，不再开始新的。"
    ),
    "Restored to the dead letters.": "已放回死信。",
    # One request
    "Why": "为何",
    "Key": "键",
    "Deliveries": "投递次数",
    "attempts": "尝试",
    "It goes on at": "将继续于",
    "Timeline": "时间线",
    "Timeline of the request": "请求的时间线",
    "on, over": "起，历时",
    "The table below has the same events as text.": "下表以文字列出相同的事件。",
    "more effects are in the table alone.": "个效果只列在表中。",
    "Deliveries and waits": "投递与等待",
    "Status updates": "状态更新",
    "What happened": "发生了什么",
    "Took": "用时",
    "Outcome": "结局",
    "failed": "失败",
    "open": "未定",
    "The whole result": "完整结果",
    "Its messages": "它的消息",
    "Where": "在哪里",
    "position": "位置",
    "Messages that workers hold and have not begun": "worker 持有但未开始的消息",
    "A request that is nowhere else may be one of them.": "别处找不到的请求可能就在其中。",
    "the oldest was published": "最早的发布于",
    "What operators did with it": "运维人员对它做过什么",
    "Replay or discard its dead letter": "重放或丢弃其死信",
    "Cancel the order: reason, for the audit record": "取消订单：原因（写入审计记录）",
    "Cancel an order": "取消订单",
    "Order": "订单",
    "Now": "现在",
    "Name the order.": "请指明订单。",
    # Audit
    "Request, batch or kind": "请求、批次或类别",
    "Action": "动作",
    "Actions": "动作",
    "Operator": "操作人",
    "Since (UTC)": "时间起（UTC）",
    "Time": "时间",
    "Target": "对象",
    "Proven user": "已证实的用户",
    "From": "来自",
    "Details": "详情",
}
