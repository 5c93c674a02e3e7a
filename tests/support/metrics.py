"""Metrics as Prometheus reads them."""

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Numbers:
    """All series of one scrape: by name, each with its labels and its value."""

    series: dict[str, list[tuple[dict[str, str], float]]]
    #: Type by name, which for a counter ends in `_total`.
    kinds: dict[str, str]

    def all(self, name: str) -> list[tuple[dict[str, str], float]]:
        """The series of a metric."""
        return self.series[name]

    def one(self, name: str, **labels: str) -> float:
        """The value of the one series with just these labels."""
        (found,) = [value for has, value in self.series[name] if has == labels]
        return found

    def total(self, name: str, **labels: str) -> float:
        """The sum of all series that have these labels."""
        return sum(value for has, value in self.series[name] if labels.items() <= has.items())


def numbers(text: str) -> Numbers:
    """Read a scrape."""
    found = Numbers({}, {})
    for family in text_string_to_metric_families(text):
        kind = family.type
        found.kinds[f"{family.name}_total" if kind == "counter" else family.name] = kind
        for sample in family.samples:
            found.series.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found
