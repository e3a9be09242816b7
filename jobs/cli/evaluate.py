"""`textmill evaluate`: a job's results beside gold values, and beside another job's."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.cli import options
from jobs.cli.session import client
from jobs.cli.table import facts, table
from jobs.errors import OutputError, UsageError

if TYPE_CHECKING:
    from jobs.client import Client
    from jobs.evaluate import Case, Comparison, Report

MOST_ROWS = 30
"""Labels that are printed, those with most gold first; `--json` has all."""


@click.command()
@options.job
@click.option("--gold", metavar="F", default="gold", help="The field with the right answer: kept, or in --gold-file.")
@click.option("--gold-file", metavar="FILE", type=click.Path(path_type=Path), help="A .jsonl or .csv with the golds.")
@click.option("--id-field", metavar="F", default="custom_id", help="The gold file's field that names items.")
@click.option("--against", metavar="JOB", help="Compare with this job over the same items.")
@click.option(
    "--threshold",
    metavar="P",
    type=click.FloatRange(0, 1),
    default=0.5,
    help="Score of a label, where several may hold.",
)
@click.option("--top", metavar="K", type=click.IntRange(min=1), default=10, help="Ranks that count, for rerank.")
@click.option("--resamples", metavar="N", type=click.IntRange(100, 100_000), default=1000, help="Of the bootstrap.")
@click.option("--seed", metavar="N", type=click.IntRange(min=0), default=0, help="Of the bootstrap.")
@click.option("--plot", metavar="FILE.svg", type=click.Path(path_type=Path), help="Draw figures and confusion there.")
@click.option("--prefilter", is_flag=True, help="Of zero_shot with a pre-filter: how often it keeps the best label.")
@options.as_json("The report as one JSON object.")
def evaluate(
    job: str,
    gold: str,
    gold_file: Path | None,
    id_field: str,
    against: str | None,
    threshold: float,
    top: int,
    resamples: int,
    seed: int,
    plot: Path | None,
    prefilter: bool,
    as_json: bool,
) -> None:
    """Compare a job's results with right answers, kept with the items (--keep) or from a file by custom_id.

    Items that ended as errors count as wrong. Intervals hold 95 % of what drawing the items anew would give.
    """
    if prefilter:
        click.echo(_prefilter(job, as_json=as_json))
        return
    if plot is not None and plot.suffix != ".svg":
        raise UsageError(f"{plot}: plots are .svg files")
    try:
        from jobs.evaluate import compared, evaluated, measure_for
        from jobs.evaluate.cases import golds_of
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'textmill[evaluate]'") from None
    golds = golds_of(gold_file, gold, id_field) if gold_file else None
    with client() as opened:
        task, some, note = _read(opened, job, gold, golds)
        measure = measure_for(task, threshold=threshold, ranks=top)
        report, _ = evaluated(task, some, measure, seed=seed, resamples=resamples)
        comparison = None
        if against is not None:
            other_task, others, other_note = _read(opened, against, gold, golds or {c.custom_id: c.gold for c in some})
            if other_task != task:
                raise UsageError(f"the jobs are of two tasks: {task} and {other_task}")
            comparison = compared(some, others, measure, seed=seed, resamples=resamples)
            note += other_note
    if plot is not None:
        _draw(plot, report, job)
    if as_json:
        click.echo(json.dumps(report.as_json() | ({"against": comparison.as_json()} if comparison else {})))
    else:
        click.echo("\n\n".join(filter(None, [*_words(report), _against(comparison, job, against)])))
    for line in note:
        click.echo(f"textmill: {line}", err=True)


def _prefilter(job: str, *, as_json: bool) -> str:
    """How often the job's pre-filter kept the best label, as its audited texts have it."""
    from jobs.evaluate.prefilter import recall

    with client() as opened:
        handle = opened.get(job)
        at = handle.refresh().params.get("prefilter")
        if at is None:
            raise UsageError(f"{handle.id} has no pre-filter (parameter 'prefilter' of zero_shot)")
        ranks = (result.output.get("prefilter_rank") for result in handle.results("ok") if result.output)
        found = recall((rank for rank in ranks if rank is not None), at)
    if found is None:
        raise UsageError(f"no text of {handle.id} was audited: see parameter 'prefilter_audit'")
    if as_json:
        return json.dumps(found._asdict())
    low, high = found.interval_95
    return (
        f"the pre-filter kept the best label of {found.recall:.1%} of {found.audited:,} audited texts "
        f"(recall at {found.at}: {found.recall:.4f}, 95 % interval {low:.4f} to {high:.4f})"
    )


def _read(
    opened: "Client", job: str, field: str, golds: dict[str, Any] | None
) -> "tuple[str, Sequence[Case], list[str]]":
    """The job's task, its items with gold, and what should be said about them."""
    from jobs.evaluate import cases

    handle = opened.get(job)
    found = handle.refresh()
    some = cases(handle.latest(), field, golds)
    note = [] if found.state.final else [f"{found.id} is {found.state}; these are the results so far"]
    done = found.counts.ok + found.counts.error
    if len(some) < done:
        note.append(f"{done - len(some):,} of {done:,} results of {found.id} have no gold value and do not count")
    return found.task, some, note


def _words(report: "Report") -> list[str]:
    head = facts([("task", report.task), ("items", f"{report.items:,}"), ("of them errors", report.errors or None)])
    figures = table(
        ("FIGURE", "VALUE", "95 % INTERVAL"),
        [(name, _number(value), _between(report.intervals.get(name))) for name, value in report.figures.items()],
    )
    parts = [head, figures]
    if report.by_label:
        rows = sorted(report.by_label.items(), key=lambda pair: -pair[1]["support"])
        some = [(name, *map(_number, row.values())) for name, row in rows[:MOST_ROWS]]
        more = f"\n{len(rows) - MOST_ROWS} more labels: --json" if len(rows) > MOST_ROWS else ""
        parts.append(table(("LABEL", "PRECISION", "RECALL", "F1", "GOLD"), some) + more)
    if len(report.by_length) > 1:
        names = tuple(next(iter(report.by_length.values())))
        rows_by_length = [(name, *map(_number, row.values())) for name, row in report.by_length.items()]
        parts.append(table(("TOKENS", *(name.upper() for name in names)), rows_by_length))
    if mistakes := _mistakes(report):
        parts.append(table(("GOLD", "FOUND INSTEAD", "ITEMS"), mistakes))
    return parts


def _mistakes(report: "Report") -> list[tuple[str, str, str]]:
    """The most frequent ones."""
    names = [*report.labels, "(none)"]
    cells = [
        (count, names[row], names[column])
        for row, counts in enumerate(report.confusion or ())
        for column, count in enumerate(counts)
        if count and row != column
    ]
    return [(gold, found, f"{count:,}") for count, gold, found in sorted(cells, key=lambda cell: -cell[0])[:10]]


def _against(comparison: "Comparison | None", first: str, second: str | None) -> str:
    if comparison is None:
        return ""
    rows = [
        (
            name,
            _number(each.first),
            _number(each.second),
            f"{each.difference:+.4f}",
            _between(each.interval_95),
            f"{each.p:.3g}",
        )
        for name, each in comparison.figures.items()
    ]
    said = facts(
        [
            ("first", first),
            ("second", second),
            ("items of both", f"{comparison.items:,}"),
            ("same output", f"{comparison.agreement:.1%}"),
            ("only the first right", str(comparison.only_first_right)),
            ("only the second right", str(comparison.only_second_right)),
            ("McNemar's p", None if comparison.mcnemar_p is None else f"{comparison.mcnemar_p:.3g}"),
        ]
    )
    return said + "\n\n" + table(("FIGURE", "FIRST", "SECOND", "DIFFERENCE", "95 % INTERVAL", "P"), rows)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def _draw(path: Path, report: "Report", job: str) -> None:
    from jobs.evaluate.plot import svg

    try:
        path.write_text(svg(report, f"{report.task}, {report.items:,} items of {job}"), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error
