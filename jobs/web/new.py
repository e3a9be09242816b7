"""A new job from a form: its task, its items pasted or uploaded, three of them tried, an estimate, the submit."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from itertools import islice
from typing import Any, BinaryIO, cast

import orjson
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, UploadFile
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.datastructures import FormData

from jobs.api.asking import answers
from jobs.api.openai.files import tidy
from jobs.api.problems import HttpProblem
from jobs.corpus import Fields, Source, stored_source
from jobs.errors import InvalidInput, InvalidItems, TextmillError, UnknownFile
from jobs.schemas import DIRECT_LABEL, Estimate, Selection
from jobs.store.files import new_file_id
from jobs.tasks import AnyTask, all_tasks, explain, find
from jobs.web import forms, results
from jobs.web.pages import Look, Looks, moved, page, rendered

TRIED = 3
"""Items that are really run before a job is submitted."""
PATIENCE_S = 30.0
"""How long they may take."""
FIRST = 100
"""Their priority: somebody waits."""
KEPT_S = 86_400
"""How long a file that was uploaded here is kept for the submit that follows."""
ESTIMATED_BYTES = 64 * 2**20
"""Inputs up to this size are read as a whole for an estimate."""
FORMATS = ("auto", "jsonl", "csv", "text")
SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".txt": "text"}
SHOWN = 20
"""Wrong lines that are listed."""
SELECTING = ("text_field", "id_field", "map", "template", "where", "limit")
OURS = ("task", "model", "items", "format", *SELECTING, "labels", "keep", "queue", "file", "on_invalid")

router = APIRouter()


@dataclass(frozen=True)
class Draft:
    """A job as far as it was typed."""

    task: str
    model: str = ""
    items: str = ""
    """Pasted."""
    format: str = "auto"
    text_field: str = ""
    id_field: str = ""
    map: str = ""
    """`title=doc.title, lang=language`: an item's fields, and the columns that they are."""
    template: str = ""
    where: str = ""
    limit: str = ""
    labels: str = ""
    """`team=news edition=morning`."""
    keep: str = ""
    queue: str = ""
    on_invalid: str = "reject"
    file: str = ""
    """The id of a file that was uploaded."""
    filename: str = ""
    bytes: int = 0
    lost: bool = False
    """The file was uploaded so long ago that it is gone."""
    params: Mapping[str, str] = field(default_factory=dict)
    """As typed, by their names in the form."""


@page(router, "/jobs/new", "new.html")
def blank(look: Look) -> Mapping[str, Any]:
    """An empty form, or with `from` the form that would submit the like of a job."""
    look.caller.need("submit")
    if like := look.asked("from"):
        job = look.service.job(look.caller, like)
        known = forms.fields(find(job.task).params.model_json_schema())
        labels = " ".join(f"{name}={value}" for name, value in job.labels.items())
        queue = "" if job.queue == "default" else job.queue
        typed = forms.typed(known, job.params)
        draft = Draft(job.task, job.model, labels=labels, keep=",".join(job.keep), queue=queue, params=typed)
    else:
        draft = Draft(_known(look.asked("task", "classify")).name, look.asked("model"))
    return _form(look, draft)


@router.post("/jobs/new")
async def take(request: Request, look: Looks) -> Response:
    """`step`: task (the form for another task), preview, or submit."""
    look.caller.need("submit")
    async with request.form(max_files=1) as form:
        draft = await run_sync(_draft, look, form)
        step = str(form.get("step", "preview"))
    if step == "task":
        return _shown(look, draft)
    try:
        if step == "submit":
            return moved(f"/jobs/{await run_sync(_submitted, look, draft)}")
        seen = await run_sync(_estimated, look, draft)
        tried = await _tried(look, draft)
    except InvalidItems as error:
        wrong = [f"line {each.line}: {each.message}" for each in error.problems[:SHOWN]]
        return _shown(look, draft, 422, error=f"{error.total:,} lines cannot be items", wrong=wrong)
    except HttpProblem as problem:
        return _shown(look, draft, problem.status, error=problem.detail)
    except TextmillError as error:
        return _shown(look, draft, 422, error=str(error))
    return _shown(look, draft, estimate=seen, tried=tried)


def _known(name: str) -> AnyTask:
    return find(name)


def _draft(look: Look, form: FormData) -> Draft:
    """What was typed; a file that came with it is kept."""
    texts = {name: value for name, value in form.items() if isinstance(value, str)}
    given: dict[str, Any] = {name: texts.get(name, "").strip() for name in OURS}
    typed = {name: value for name, value in texts.items() if name.startswith(forms.PREFIX)}
    given["items"] = texts.get("items", "")  # as it was pasted: the indentation of a text may matter
    given["format"] = given["format"] if given["format"] in FORMATS else "auto"
    draft = replace(Draft(_known(given.pop("task")).name, params=typed), **given)
    upload = form.get("upload")
    if isinstance(upload, UploadFile) or hasattr(upload, "file"):
        new = cast(UploadFile, upload)
        if new.filename:
            file_id = new_file_id()
            size = look.service.storage.write(file_id, new.file)
            until = datetime.now(UTC) + timedelta(seconds=KEPT_S)
            row = look.service.store.files.add(
                file_id, look.caller.tenant, purpose="job", filename=tidy(new.filename), size=size, expires_at=until
            )
            return replace(draft, file=row.id, filename=row.filename, bytes=row.bytes)
    return _with_file(look, draft)


def _with_file(look: Look, draft: Draft) -> Draft:
    """With what is known of the file that was uploaded before; without the file, if it is gone by now."""
    if not draft.file:
        return draft
    try:
        row = look.service.store.files.get(draft.file, look.caller.tenant)
    except UnknownFile:
        return replace(draft, file="", lost=True)
    return replace(draft, filename=row.filename, bytes=row.bytes)


def _source(look: Look, draft: Draft) -> Source:
    """The items. Raises InvalidInput where there are none."""
    if draft.file:
        row = look.service.store.files.get(draft.file, look.caller.tenant)
        form = draft.format if draft.format != "auto" else _by_name(row.filename)
        return _opened(look, draft, lambda: look.service.storage.open(row.names), form, row.filename)
    if draft.lost and not draft.items.strip():
        raise InvalidInput("the file that was uploaded before is no longer kept: choose it again")
    if not draft.items.strip():
        raise InvalidInput("there are no items: paste some, or choose a file")
    data = draft.items.replace("\r\n", "\n").encode("utf-8", "replace")
    form = draft.format if draft.format != "auto" else "jsonl" if data.lstrip()[:1] in (b"{", b'"') else "text"
    return _opened(look, draft, lambda: cast(BinaryIO, BytesIO(data)), form, "the items")


def _opened(look: Look, draft: Draft, opened: Any, form: str, shown: str) -> Source:
    return stored_source(
        opened,
        form=form,
        shown=shown,
        fields=Fields.of(_selected(draft), find(draft.task).main_field),
        max_line_bytes=look.service.settings.max_line_bytes,
    )


def _selected(draft: Draft) -> Selection:
    """Which rows and columns become items. Raises InvalidInput."""
    pairs = dict[str, str]()
    for pair in filter(None, map(str.strip, draft.map.split(","))):
        name, equals, column = map(str.strip, pair.partition("="))
        if not equals or name in pairs:
            raise InvalidInput(f"columns: {pair[:100]!r} is not FIELD=COLUMN, each field once")
        pairs[name] = column
    typed = {name: getattr(draft, name).replace("\r\n", "\n") or None for name in SELECTING}
    try:
        return Selection.model_validate({**typed, "map": pairs})
    except ValidationError as error:
        raise InvalidInput("\n".join(explain(error))) from error


def _by_name(filename: str) -> str:
    suffix = f".{filename.rpartition('.')[2].lower()}"
    if suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise InvalidInput(f"{filename}: its name does not tell the format ({known}); choose one")
    return SUFFIXES[suffix]


def _asked(draft: Draft) -> dict[str, Any]:
    """What of the draft every submit is told. Raises InvalidParams."""
    known = forms.fields(find(draft.task).params.model_json_schema())
    return {"model": draft.model or None, "params": forms.params(known, draft.params)}


def _submitted(look: Look, draft: Draft) -> str:
    """The id of the new job."""
    labels = {}
    for word in draft.labels.split():
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise InvalidInput(f"label {word[:100]!r} is not NAME=VALUE")
        labels[name] = value
    handle = look.service.client.submit(
        draft.task,
        _source(look, draft),
        **_asked(draft),
        labels=labels,
        keep=tuple(filter(None, map(str.strip, draft.keep.split(",")))),
        queue=draft.queue or "default",
        on_invalid="skip" if draft.on_invalid == "skip" else "reject",
        tenant=look.caller.tenant,
    )
    return handle.id


def _estimated(look: Look, draft: Draft) -> Estimate | None:
    """None: the input is too large to be read while somebody waits."""
    source = _source(look, draft)
    if draft.bytes > ESTIMATED_BYTES:
        return None
    return look.service.client.estimate(draft.task, source, **_asked(draft), tenant=look.caller.tenant)


async def _tried(look: Look, draft: Draft) -> list[Any]:
    """The first items with what came of them, really run."""
    items = await run_sync(_first, look, draft)
    if not items:
        raise InvalidInput("none of the first lines can be an item")

    def submit() -> str:
        handle = look.service.client.submit(
            draft.task,
            items,
            **_asked(draft),
            queue=draft.queue or "default",
            labels={DIRECT_LABEL: "preview"},
            priority=FIRST,
            tenant=look.caller.tenant,
        )
        return handle.id

    job_id = await run_sync(submit)
    instead = "no worker was free; submit it all the same, or look at the workers"
    found = await answers(look.service, job_id, len(items), PATIENCE_S, instead=instead)
    params = _asked(draft)["params"]
    return [results.render(draft.task, item, result, params) for item, result in zip(items, found, strict=True)]


def _first(look: Look, draft: Draft) -> list[dict[str, Any]]:
    lines = iter(_source(look, draft))
    good = (orjson.loads(line) for _, line in islice(lines, 100) if isinstance(line, bytes))
    texts = ({find(draft.task).main_field: each} if isinstance(each, str) else each for each in good)
    return list(islice(texts, TRIED))


def _form(look: Look, draft: Draft) -> dict[str, Any]:
    task = find(draft.task)
    models = [each for each in look.service.client.registry_of(look.caller.tenant).list() if task.name in each.tasks]
    return {
        "draft": draft,
        "task": task,
        "tasks": [each.name for each in all_tasks()],
        "models": [each.name for each in models],
        "fields": forms.fields(task.params.model_json_schema()),
        "formats": FORMATS,
        "error": None,
        "wrong": (),
        "estimate": None,
        "tried": None,
        "most_bytes": ESTIMATED_BYTES,
    }


def _shown(look: Look, draft: Draft, status: int = 200, **more: Any) -> Response:
    return rendered("new.html", look.request, look, status=status, **{**_form(look, draft), **more})
