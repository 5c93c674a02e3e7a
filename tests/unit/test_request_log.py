"""The log of requests: one project's flood of questions does not hold up another's."""

import asyncio
from collections.abc import Sequence
from unittest.mock import create_autospec

from workers.journal import Journal, RequestRecord
from workers.pipeline.request_log import JournalRequests


async def test_projects_read_in_turn() -> None:
    read = list[str]()

    async def with_keys(keys: Sequence[str]) -> dict[str, RequestRecord]:
        await asyncio.sleep(0.001)
        read.append("b" if any(":b:" in key for key in keys) else "a")
        return {}

    journal = create_autospec(Journal, instance=True)
    journal.with_keys.side_effect = with_keys
    log = JournalRequests(journal)
    flood = [asyncio.create_task(log.find("a", "key")) for _ in range(50)]
    await asyncio.sleep(0)
    await asyncio.wait_for(asyncio.gather(log.find("b", "key"), *flood), 10)
    assert len(read) == 51
    assert read.index("b") < 10
