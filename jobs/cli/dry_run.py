"""`--dry-run`: what an input would be as a job, in words; nothing is stored or run."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.cli import ERROR
from jobs.cli.choice import HUB_ID, only_one
from jobs.cli.inputs import Noticed, open_inputs
from jobs.cli.loading import filtered
from jobs.cli.progress import span
from jobs.cli.table import facts
from jobs.corpus import Fields, Rows
from jobs.models import BUILT_IN, inspect
from jobs.schemas import Estimate, LongTexts, TimeEstimate, TokenCounts
from jobs.settings import load_settings
from jobs.tasks import resolve

if TYPE_CHECKING:
    from jobs.client import Client
    from jobs.models import ModelSpec
    from jobs.store import Store
    from jobs.tasks import AnyTask

SHOWN = 10
"""Invalid lines that are shown one by one."""
BAR = 30


def estimated(
    client: "Client",
    model: "str | ModelSpec",
    *,
    task: str,
    inputs: Sequence[str],
    params: Mapping[str, Any],
    text_field: str | None,
    id_field: str | None,
    rows: Rows,
    form: str | None,
    query: str | None,
    keep: Sequence[str],
) -> Estimate:
    """The estimate of what was typed. Raises what is wrong with it."""
    found, given = resolve(task, params)
    fields = Fields(main=found.main_field, text=text_field, id=id_field, rows=rows)
    with open_inputs(inputs, load_settings(), fields, form=form, query=query, say=_say) as source:
        found_out = client.estimate(found.name, Noticed(source, _say), model=model, params=given, keep=keep)
    for notice in filtered(source):
        _say(notice)
    return found_out


def looked_at(store: "Store", client: "Client", task: "AnyTask", wanted: str | None) -> "str | ModelSpec":
    """The model that `textmill run` would use; a folder or a Hub id is read and not registered."""
    if wanted is None:
        return only_one(client.registry.list(), task.name)
    there = wanted in BUILT_IN or store.models.get(wanted) is not None
    if not there and (Path(wanted).is_dir() or HUB_ID.fullmatch(wanted)):
        return inspect(wanted)
    return wanted


def exit_code(estimate: Estimate, on_invalid: str) -> int:
    """That of an error where the job itself would be refused."""
    refused = not estimate.items or (estimate.invalid and on_invalid == "reject")
    return ERROR if refused else 0


def told(estimate: Estimate) -> str:
    """The estimate, a fact a line, with a histogram."""
    tokens = estimate.tokens
    said = facts(
        [
            ("dry run", f"{estimate.task} on {estimate.model}; nothing was stored or run"),
            ("items", f"{estimate.items:,} in {estimate.chunks:,} chunks"),
            ("invalid", f"{estimate.invalid:,} lines cannot be items" if estimate.invalid else None),
            ("duplicates", f"{estimate.duplicates:,} items have the text of another" if estimate.duplicates else None),
            ("tokens", _tokens(tokens)),
            ("lengths", _lengths(tokens)),
            ("too long", _long(estimate.long)),
            ("time", _time(estimate.time)),
        ]
    )
    return "\n".join([said, "", *_histogram(tokens), *_problems(estimate)])


def _tokens(tokens: TokenCounts) -> str:
    by = "by the model's tokenizer" if tokens.counted_by == "tokenizer" else "roughly, by bytes"
    return f"{tokens.total:,} in ({by})" + (f", at most {tokens.answers:,} out" if tokens.answers else "")


def _lengths(tokens: TokenCounts) -> str:
    return f"{tokens.shortest:,} to {tokens.longest:,}, median {tokens.median:,}, 9 in 10 at most {tokens.p90:,}"


def _long(long: LongTexts | None) -> str:
    if long is None:
        return "not known, as the model's files name no limit"
    if not long.items:
        return f"none: the model reads {long.limit:,} tokens"
    fate = {
        "split": f"are read in about {long.windows:,} windows",
        "truncate": f"lose {long.tokens_lost:,} tokens in all",
        "error": "fail with too_long",
    }
    return f"{long.items:,} of more than {long.limit:,} tokens, which {fate[long.long_text]}"


def _time(time: TimeEstimate | None) -> str:
    if time is None:
        return "not known, as no such job has ended yet; a canary tells (--canary N)"
    return f"{span(time)}, by {time.jobs:,} past job(s)"


def _histogram(tokens: TokenCounts) -> Iterator[str]:
    most = max((each.items for each in tokens.histogram), default=0)
    wide = max((len(f"{each.items:,}") for each in tokens.histogram), default=0)
    for each in tokens.histogram:
        bar = "#" * max(1, BAR * each.items // most)
        yield f"  <= {each.up_to:>9,} tokens  {each.items:>{wide},}  {bar}"


def _problems(estimate: Estimate) -> Iterator[str]:
    if estimate.problems:
        yield ""
    for each in estimate.problems[:SHOWN]:
        where = f"{each.file}:{each.line}" if each.file else f"line {each.line}"
        yield f"  {where}: {each.code}: {each.message}"
    if estimate.invalid > SHOWN:
        yield f"  ... and {estimate.invalid - SHOWN:,} more"


def _say(text: str) -> None:
    print(f"textmill: {text}", file=sys.stderr, flush=True)
