"""What a run of ./compare is written down as: a table in Markdown, and a plot."""

import os
import pathlib
import statistics
from xml.sax.saxutils import escape


def machine(postgres: str) -> str:
    """Where it was measured, in a line."""
    model = "an unknown processor"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = " ".join(line.partition(":")[2].split())
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB of memory, Postgres {postgres}"


def line(result: dict) -> str:
    """A measurement, for whoever waits."""
    what = result["what"].replace("_", " ")
    if "failed" in result:
        return f"{what}: FAILED: {result['failed']}"
    if "per_second" in result:
        return f"{what}: {result['per_second']:,.0f} jobs/s"
    return f"{what}: p50 {result['p50'] / 1000:.2f} ms, p99 {result['p99'] / 1000:.2f} ms"


class Results:
    def __init__(self, results: list[dict]):
        self.results = results

    def values(self, name: str, what: str, field: str) -> dict[int, float]:
        """By round."""
        return {
            result["round"]: result[field]
            for result in self.results
            if result["name"] == name and result["what"] == what and "failed" not in result
        }

    def median(self, name: str, what: str, field: str) -> float | None:
        values = self.values(name, what, field)
        return statistics.median(values.values()) if values else None

    def ratio(self, name: str, reference: str, what: str, field: str) -> float | None:
        """The median of the rounds' ratios: what slows a whole round down does not show in it."""
        values, others = self.values(name, what, field), self.values(reference, what, field)
        ratios = [value / others[turn] for turn, value in values.items() if turn in others]
        return statistics.median(ratios) if ratios else None


def table(contestants: list[dict], run: dict) -> str:
    results = Results(run["results"])
    head = [
        "", "jobs", "burn down, jobs/s", "to Windlass", "sustained, jobs/s", "to Windlass", "p50, ms", "to Windlass", "p99, ms",
        "resident, MiB", "at most", "on record afterwards", "durable",
    ]  # fmt: skip
    rows = []
    for one in contestants:
        name = one["name"]

        def cell(what: str, field: str, form: str, unit: float = 1, name: str = name) -> str:
            median = results.median(name, what, field)
            return "failed" if median is None else form.format(median / unit)

        def ratio(what: str, field: str, one: dict = one) -> str:
            if one["name"] == one["reference"]:
                return "1"
            ratio = results.ratio(one["name"], one["reference"], what, field)
            return "" if ratio is None else f"{ratio:.2f}"

        kept = results.median(name, "burn_down", "kept")
        rows.append([
            name, f"{jobs(one, run):,}",
            cell("burn_down", "per_second", "{:,.0f}"), ratio("burn_down", "per_second"),
            cell("sustained", "per_second", "{:,.0f}"), ratio("sustained", "per_second"),
            cell("latency", "p50", "{:.2f}", 1000), ratio("latency", "p50"),
            cell("latency", "p99", "{:.2f}", 1000),
            cell("burn_down", "resident", "{:.0f}", 2**20), cell("burn_down", "resident_most", "{:.0f}", 2**20),
            "failed" if kept is None else "every job" if kept else "nothing",
            one["durable"],
        ])  # fmt: skip
    lines = [
        "# Windlass beside its peers",
        "",
        f"{run['about']}. Latency at {run['rate']} jobs/s. Medians of {run['rounds']} rounds; a ratio is the median of the "
        "rounds' own, to the Windlass on the same servers.",
        "",
        *("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]),
    ]
    failures = [
        f"- round {one['round']}, {one['name']}, {one['what'].replace('_', ' ')}: {one['failed']}"
        for one in run["results"]
        if "failed" in one
    ]
    if failures:
        lines += ["", "What failed:", "", *failures]
    return "\n".join(lines) + "\n"


def jobs(contestant: dict, run: dict) -> int:
    """How many it is given: the slowest get fewer."""
    return max(1, int(run["jobs"] * contestant["share"]))


PANELS = [
    ("Burn down, jobs/s (more is better)", "burn_down", "per_second", 1, "{:,.0f}"),
    ("Sustained, jobs/s (more is better)", "sustained", "per_second", 1, "{:,.0f}"),
    ("Enqueue to start, p50, ms (less is better)", "latency", "p50", 1000, "{:.2f}"),
]
WIDTH, LEFT, RIGHT, ROW, TITLE = 900, 170, 90, 22, 44


def plot(contestants: list[dict], run: dict) -> str:
    """Bars of the medians, with a line from the least to the most."""
    results = Results(run["results"])
    parts, top = [], 0
    for title, what, field, unit, form in PANELS:
        parts.append(f'<text x="10" y="{top + 28}" class="title">{escape(title)}</text>')
        top += TITLE
        values = {
            one["name"]: [value / unit for value in results.values(one["name"], what, field).values()] for one in contestants
        }
        scale = (WIDTH - LEFT - RIGHT) / max((max(found) for found in values.values() if found), default=1)
        for name, found in values.items():
            middle = top + ROW / 2
            parts.append(f'<text x="{LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>')
            if not found:
                parts.append(f'<text x="{LEFT}" y="{middle + 4}">failed</text>')
            else:
                median, ours = statistics.median(found), name.startswith("windlass")
                least, most = LEFT + min(found) * scale, LEFT + max(found) * scale
                parts += [
                    f'<rect x="{LEFT}" y="{top + 3}" width="{median * scale:.1f}" height="{ROW - 6}" '
                    f'fill="{"#1f6fb2" if ours else "#b9c3cd"}"/>',
                    f'<path d="M{least:.1f} {middle}H{most:.1f}" stroke="#222"/>',
                    f'<text x="{most + 6:.1f}" y="{middle + 4}">{form.format(median)}</text>',
                ]
            top += ROW
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 10}" font-family="sans-serif" font-size="13">',
        "<style>.title{font-size:15px;font-weight:bold}</style>",
        f'<rect width="{WIDTH}" height="{top + 10}" fill="#fff"/>',
        *parts,
        "</svg>\n",
    ])  # fmt: skip
