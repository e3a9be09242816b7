"""What `textmill run` says at its end: counts, where the results are, and what to type next."""

import json

from jobs.cli.output import Tally
from jobs.durations import duration
from jobs.schemas import Job


def summary(job: Job, tally: Tally, output: str) -> str:
    """The summary of a completed job, several lines."""
    lines = [_counts(job, tally)]
    if tally.truncated_items:
        lines.append(f"cut     {tally.truncated_tokens:,} tokens of {tally.truncated_items:,} long items were not read")
    if tally.cut_outputs:
        lines.append(f"cut     {tally.cut_outputs:,} outputs ended at max_new_tokens, perhaps in mid-sentence")
    lines += [f"results {'standard output' if output == '-' else output}", f"job     {job.id}"]
    if tally.errors:
        lines += [
            f"next    textmill results {job.id} --status error     what went wrong, item by item",
            f"        textmill retry {job.id}                      the failed items again, as a new job",
        ]
    return "\n".join(lines)


def summary_json(job: Job, tally: Tally, output: str) -> str:
    """The same as one line of JSON."""
    counts = {"ok": tally.ok, "error": tally.errors.total(), "errors": dict(tally.errors)}
    cut = {"truncated_items": tally.truncated_items, "truncated_tokens": tally.truncated_tokens}
    return json.dumps({"summary": {"job": job.id, "state": str(job.state), **counts, **cut, "output": output}})


def interrupted(job: Job | None, elsewhere: str | None) -> str:
    """What is true after Ctrl-C: nothing is lost, and how to go on."""
    if job is None:
        return "interrupted; the same command starts again"
    kept = f"interrupted; {job.id} and its results so far are kept, the same command goes on"
    return f"{kept}\n  {elsewhere} works on meanwhile; to end the job: textmill cancel {job.id}" if elsewhere else kept


def _counts(job: Job, tally: Tally) -> str:
    failed = sum(tally.errors.values())
    text = f"done    {tally.ok + failed:,} items: {tally.ok:,} ok"
    if failed:
        codes = ", ".join(f"{code} {count:,}" for code, count in tally.errors.most_common())
        text += f", {failed:,} failed ({codes})"
    if job.started_at and job.finished_at:
        text += f", in {duration((job.finished_at - job.started_at).total_seconds())}"
    return text
