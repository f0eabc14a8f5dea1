"""Medians, tables and plots of what the benchmarks have measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Summary:
    """The medians of several runs; seconds of the service."""

    name: str
    codes_per_minute: float
    p50: float
    p95: float
    requests: int
    refused: int
    lost: int

    def line(self) -> str:
        """For the terminal."""
        return (
            f"{self.name:48}{self.codes_per_minute:7.1f}/min   p50 {self.p50:6.1f} s   p95 {self.p95:6.1f} s"
            f"{self.requests:6} requests {self.refused:5} x 429 {self.lost:4} lost"
        )


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


def summary(name: str, results: Sequence[Any]) -> Summary:
    """Medians over runs; of the latencies, over the runs' percentiles. What is lost, is lost: the sum."""
    return Summary(
        name,
        codes_per_minute=statistics.median(result.codes_per_minute for result in results),
        p50=statistics.median(percentile(result.latencies, 0.5) for result in results),
        p95=statistics.median(percentile(result.latencies, 0.95) for result in results),
        requests=round(statistics.median(result.requests for result in results)),
        refused=round(statistics.median(result.refused for result in results)),
        lost=sum(result.lost for result in results),
    )


def table(summaries: Sequence[Summary]) -> str:
    """As Markdown."""
    head = "| way | codes/min | p50 | p95 | requests | 429s | lost |\n|---|---:|---:|---:|---:|---:|---:|"
    rows = [
        f"| {one.name} | {one.codes_per_minute:.1f} | {one.p50:.1f} s | {one.p95:.1f} s "
        f"| {one.requests} | {one.refused} | {one.lost} |"
        for one in summaries
    ]
    return "\n".join([head, *rows])


def write_into(page: Path, name: str, content: str) -> None:
    """Writes a part of a page: what stands between its comments `name` and `/name`.

    Raises:
        ValueError: one of the comments is missing. The page stays as it is.
    """
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, has_begin, rest = text.partition(begin)
    _, has_end, after = rest.partition(end)
    if not has_begin or not has_end:
        raise ValueError(
            f"{page} has no {begin} with a {end} after it, so nothing was written. Put both where the "
            "figures belong"
        )
    page.write_text(f"{before}{begin}\n{content}\n{end}{after}", encoding="utf-8")


# ------------------------------------------------------------------ the plot

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 330, 300, 48, 46, 34
SLOWEST = 100.0  # seconds, the top of the latency's axis, which is logarithmic
QUICKEST = 0.1
COLOURS = {"by-hand": "#c0392b", "coordinated": "#7f8c8d", "ours": "#1f6fb2", "ours-called": "#2e9e5b"}


def plot(panels: Sequence[tuple[int, Sequence[tuple[str, Summary]]]]) -> str:
    """Throughput against latency as SVG, a panel for each number of waits; ways come with their keys."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * len(panels)}" height="{HEIGHT + 30}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for place, (number, ways) in enumerate(panels):
        fastest = 1.15 * max(one.codes_per_minute for _, one in ways)
        parts.append(f'<g transform="translate({place * WIDTH},0)">{_panel(number, ways, fastest)}</g>')
    parts.append(_legend())
    return "\n".join([*parts, "</svg>", ""])


def _panel(number: int, ways: Sequence[tuple[str, Summary]], fastest: float) -> str:
    right, floor = WIDTH - 16, HEIGHT - BOTTOM
    parts = [f'<text x="{LEFT}" y="20" font-size="13" font-weight="bold">N = {number}</text>']
    for seconds in (0.1, 1.0, 10.0, 100.0):
        y = _y(seconds)
        parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e3e3e3"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{seconds:g} s</text>')
    for tick in range(5):
        x = LEFT + tick / 4 * (right - LEFT)
        label = f"{tick / 4 * fastest:.3g}"
        parts.append(f'<text x="{x:.1f}" y="{floor + 16}" text-anchor="middle">{label}</text>')
    parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{floor}" y2="{floor}" stroke="#555"/>')
    parts.append(
        f'<text x="{(LEFT + right) / 2}" y="{floor + 34}" text-anchor="middle">codes a minute</text>'
    )
    for key, one in ways:
        x = LEFT + one.codes_per_minute / fastest * (right - LEFT)
        colour = COLOURS[key if key in COLOURS else key.partition("-")[0]]
        low, high = _y(one.p50), _y(one.p95)
        parts.append(f"<g><title>{one.name}</title>")
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{colour}"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{low:.1f}" r="5" fill="{colour}"/></g>')
    return "".join(parts)


def _y(seconds: float) -> float:
    share = math.log(min(max(seconds, QUICKEST), SLOWEST) / QUICKEST) / math.log(SLOWEST / QUICKEST)
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def _legend() -> str:
    names = {
        "by-hand": "a thread per order",
        "coordinated": "one poller for all, several paces",
        "ours": "smsverify, polling, code_latency 2 to 40 s",
        "ours-called": "smsverify, callbacks",
    }
    parts, x = [], LEFT
    for key, name in names.items():
        parts.append(f'<circle cx="{x}" cy="{HEIGHT + 12}" r="5" fill="{COLOURS[key]}"/>')
        parts.append(f'<text x="{x + 10}" y="{HEIGHT + 16}">{name}</text>')
        x += 60 + 6 * len(name)
    note = "dot: p50, line: up to p95, from the SMS to the code in hand"
    parts.append(f'<text x="{x}" y="{HEIGHT + 16}" fill="#555">{note}</text>')
    return "".join(parts)
