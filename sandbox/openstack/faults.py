"""Faults on request, in the words of the real control plane's: a point, what it must match, and what then happens."""

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Rule:
    """Strikes at a point: `api.SERVICE` (matched in `METHOD PATH`), `virt.METHOD` or `volume.METHOD` (in `UUID NAME`).

    It waits `delay` seconds; then it fails with `error` (an API with `status`), or lets the call go on.
    """

    point: str
    match: str = ""
    delay: float = 0.0
    error: str | None = None
    status: int = 503
    times: int | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Rule":
        """A rule from JSON; TypeError where a field is unknown."""
        return cls(**{key: value for key, value in record.items() if value is not None})


class Faults:
    """The rules that are in force."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def add(self, rule: Rule) -> None:
        """Put a rule in force."""
        self._rules.append(rule)

    def clear(self) -> None:
        """Forget all rules."""
        self._rules.clear()

    async def strike(self, point: str, subject: str) -> Rule | None:
        """Wait as the first rule that matches says; the rule, if it says that the call fails."""
        rule = self._taken(point, subject)
        if rule is None:
            return None
        await asyncio.sleep(rule.delay)
        return rule if rule.error is not None else None

    def _taken(self, point: str, subject: str) -> Rule | None:
        for rule in _matching(self._rules, point, subject):
            if rule.times is not None:
                rule.times -= 1
                if rule.times <= 0:
                    self._rules.remove(rule)
            return rule
        return None


def _matching(rules: Iterable[Rule], point: str, subject: str) -> list[Rule]:
    return [rule for rule in rules if rule.point == point and re.search(rule.match, subject)]
