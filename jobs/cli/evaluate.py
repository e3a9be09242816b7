"""`textmill evaluate`: a job's results beside gold values, and beside another job's."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.cli import options
from jobs.cli.session import client
from jobs.cli.table import facts, table
from jobs.errors import MissingGold, NotInstalled, OutputError, UsageError

if TYPE_CHECKING:
    from jobs.evaluate import Comparison, Report

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
        from jobs.evaluate import judged
        from jobs.evaluate.cases import golds_of
    except ImportError as error:
        raise NotInstalled(f"{error.name} is not installed: pip install 'textmill[evaluate]'") from None
    golds = golds_of(gold_file, gold, id_field) if gold_file else None
    with client() as opened:
        try:
            found = judged(
                opened.get(job),
                opened.get(against) if against is not None else None,
                field=gold,
                golds=golds,
                threshold=threshold,
                ranks=top,
                resamples=resamples,
                seed=seed,
            )
        except MissingGold as error:
            raise MissingGold(f"{error} (submit with --keep {gold}, or name a --gold-file)") from None
    if plot is not None:
        _draw(plot, found.report, job)
    if as_json:
        click.echo(json.dumps(found.as_json()))
    else:
        click.echo("\n\n".join(filter(None, [*_words(found.report), _against(found.against, job, against)])))
    for line in found.notes:
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
