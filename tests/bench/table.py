"""The table of figures and aims."""

from collections.abc import Mapping, Sequence
from statistics import median

from tests.bench.measure import Figures
from tests.bench.rows import Line

#: The figures of each round by measurement; None where it failed.
Rounds = Mapping[str, Sequence[Figures | None]]
_FIGURES = {"rate": "/s", "cpu": " µs", "memory": " MB", "seconds": " s", "plain": "/s"}


def measured(rounds: Rounds) -> list[list[str]]:
    """Return a row for each figure: measurement, figure, median, lowest, highest."""
    found = [["measured", "figure", "median", "lowest", "highest"]]
    for name, listed in rounds.items():
        for figure in dict.fromkeys(one for figures in listed for one in figures or ()):
            values = [figures[figure] for figures in listed if figures is not None]
            found.append([name, figure, *map(number, (median(values), min(values), max(values)))])
        failures = sum(figures is None for figures in listed)
        if failures:
            found.append([name, f"FAILED in {failures} of {len(listed)} rounds", "", "", ""])
    return found


def aims(rounds: Rounds, lines: Sequence[Line], *, judged: bool = True) -> list[list[str]]:
    """Return a row for each aim of what was measured: with the figures that it is made of, the
    median of the rounds, their spread, the aim, and whether it is met. A run with fewer messages is
    not judged.
    """
    found = [["", "ours", "beside", "median", "lowest - highest", "aim", ""]]
    for line in lines:
        parts = [line.of] if line.beside is None else [line.of, line.beside]
        if any(part.partition(".")[0] not in rounds for part in parts):
            continue
        series = [_series(rounds, part) for part in parts]
        values = [
            _value(line, pair)
            for pair in zip(*series, strict=True)
            if all(one is not None for one in pair)
        ]
        sign = "≥" if line.at_least else "≤"
        aim = f"{sign} {line.aim:g} {line.unit}"
        if not values:
            found.append([line.what, "", "", "FAILED", "", aim, "NOT MET"])
            continue
        middle = median(values)
        met = middle >= line.aim if line.at_least else middle <= line.aim
        found.append(
            [
                line.what,
                _typical(series[0]),
                _typical(series[1]) if line.beside is not None else "",
                f"{number(middle)} {line.unit}",
                f"{number(min(values))} - {number(max(values))}",
                aim,
                ("met" if met else "NOT MET") if judged else "not judged",
            ]
        )
    return found


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table, the first one as its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = ["-" * width for width in widths]
    lines = [
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in (rows[0], rule, *rows[1:])
    ]
    return "\n".join(f"| {line} |" for line in lines)


def number(value: float) -> str:
    """Return a number with three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _series(rounds: Rounds, part: str) -> list[float | None]:
    name, _, figure = part.partition(".")
    return [figures[figure] if figures is not None else None for figures in rounds[name]]


def _typical(series: Sequence[float | None]) -> str:
    return number(median([one for one in series if one is not None]))


def _value(line: Line, pair: Sequence[float | None]) -> float:
    ours, beside = pair[0], pair[-1]
    assert ours is not None
    assert beside is not None
    if line.beside is None:
        return ours
    ratio = beside / ours if line.inverted else ours / beside
    return ratio * 100 if line.unit == "%" else ratio
