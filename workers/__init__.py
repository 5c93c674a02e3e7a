"""The worker: messages come, are carried out, and go; the command line."""

import sys
from typing import Any

#: Thresholds of the garbage collector. Imports and requests make objects that stay for long: by
#: default they would be looked at every 700 new ones.
GARBAGE_THRESHOLDS = (50_000, 20, 20)

# structlog imports rich, where that is installed, for tracebacks that no log of ours has: 45 ms and
# 4 MB of every start. Without rich it does without. The command line imports rich where it prints
# tables. `ecs-worker probe` is run every few seconds, and needs neither.
_modules: dict[str, Any] = vars(sys)["modules"]
if sys.argv[1:2] != ["probe"] and not _modules.keys() & {"rich", "structlog"}:
    _modules["rich"] = None
    try:
        import structlog  # noqa: F401
    finally:
        del _modules["rich"]
