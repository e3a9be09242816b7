"""`make demo`: five real jobs over the texts in this folder, each through the `textmill run` command line."""

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUT = Path("out")
TEXTMILL = Path(sys.executable).with_name("textmill")
MINILM, SMOLLM2 = "minilm-l6", "smollm2-135m-instruct"
FINISHED_WITH_FAILED_ITEMS = 3
INTERRUPTED = 130

Results = list[dict[str, Any]]


@dataclass(frozen=True)
class Step:
    """One job of the demo: what is run, and how a person looks at what came out."""

    task: str
    about: str
    source: str
    out: str
    model: str
    show: Callable[[Results], None]
    params: dict[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """What is typed after `textmill`."""
        given = [f"--param={name}={_typed(value)}" for name, value in self.params.items()]
        places = [f"examples/{self.source}", "-o", str(OUT / self.out)]
        return ["run", self.task, *places, "--model", self.model, *given, *self.options]


def main() -> int:
    """0 when every job ran; the exit code of the command that did not, otherwise."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    os.chdir(ROOT)
    OUT.mkdir(exist_ok=True)
    os.environ.setdefault("TEXTMILL_HOME", str(ROOT / ".textmill"))
    # Threads of the worker that wait for each other must not spin long: beside other busy programs it is ten times
    # slower (measured with torch 2.13 on 2 cores), on an idle machine it makes no difference.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        return _run_all()
    except KeyboardInterrupt:
        print("\nStopped. What is done is kept: the same command goes on from here.")
        return INTERRUPTED


def _run_all() -> int:
    _introduce()
    if code := _textmill("models", "fetch", "demo", stdout=subprocess.DEVNULL):
        return code
    done: list[tuple[Step, dict[str, Any], bool]] = []
    for number, step in enumerate(STEPS, start=1):
        _heading(f"{number}/{len(STEPS)}  {step.task}: {step.about}")
        _say(f"$ textmill {shlex.join(step.command)}\n")
        began = time.time()
        code = _textmill(*step.command)
        if code not in (0, FINISHED_WITH_FAILED_ITEMS):
            return code
        print()
        step.show(_read(OUT / step.out))
        job = _job_of(step)
        done.append((step, job, datetime.fromisoformat(job["finished_at"]).timestamp() < began))
    _sum_up(done)
    return 0


def _introduce() -> None:
    _heading("Textmill demo")
    _say(
        f"Five bulk jobs over the texts in examples/, on this machine alone: broker, database and worker are embedded "
        f"in {os.environ['TEXTMILL_HOME']}. The two models are small enough to run anywhere. SmolLM2 has 135 million "
        "parameters: it is here to show the machinery, not to be judged for the quality of its texts. "
        "Interrupt at any time; the same command goes on where it was."
    )
    print()


# ----- what a person sees of each task ---------------------------------------------------------------------


def _show_topics(results: Results) -> None:
    wrong = Counter((row["kept"]["topic"], _topic(row)) for row in results if row["kept"]["topic"] != _topic(row))
    right = len(results) - wrong.total()
    for row in results[::21]:
        best = row["output"]["labels"][0]
        mark = "right" if best["label"] == row["kept"]["topic"] else f"wrong, a person said {row['kept']['topic']}"
        _pair(_TEXTS["reviews.jsonl"][row["custom_id"]], f"{best['label']} ({best['score']:.2f})  {mark}")
    _say(
        f"{right} of {len(results)} agree with the person who wrote them down ({right / len(results):.0%}; "
        f"guessing gives {1 / len(TOPICS):.0%}). The model has never seen these labels: it compares meanings."
    )
    if wrong:
        (said, taken), times = wrong.most_common(1)[0]
        _say(f"Most frequent mix-up: {said} taken for {taken}, {times} times.")


def _show_summaries(results: Results) -> None:
    for row in results[::8]:
        text = Path("examples/articles", row["custom_id"]).read_text(encoding="utf-8")
        _pair(text.replace("\n\n", ". ", 1), row["output"]["summary_text"])
    _say_cut(results)
    _say("It writes fluent English and gets facts wrong: read none of this as a summary.")


def _show_translations(results: Results) -> None:
    for row in results[::16]:
        text = _TEXTS["sentences_en.csv"][row["custom_id"]]
        _pair(text, row["output"]["translation_text"], row["kept"]["reference_de"])
    _say_cut(results)
    _say(
        "SmolLM2 learned English and hardly any German: this is nonsense beside a person's translation (ref.), "
        "and shows only that the job runs. A translation model such as opus-mt-en-de takes its place with "
        "`textmill models add`."
    )


def _show_answers(results: Results) -> None:
    for row in results[::8]:
        _pair(_TEXTS["questions.jsonl"][row["custom_id"]], row["output"]["generations"][0]["generated_text"])
    _say_cut(results)
    _say("Some are chats, some are beginnings to be continued; the model's own chat template is used.")


def _say_cut(results: Results) -> None:
    """Which of the texts are not whole."""
    ends = [row["output"].get("generations", [row["output"]])[0]["finish_reason"] for row in results]
    if cut := ends.count("length"):
        _say(
            f"{cut} of {len(results)} ended at the limit of tokens (max_new_tokens), mostly in mid-sentence; each says "
            "so by its finish_reason, `length`."
        )


def _show_neighbours(results: Results) -> None:
    nearest = [_nearest(row, results) for row in results]
    for row, other, cosine in sorted(nearest, key=lambda found: -found[2])[:8:2]:
        _pair(_TEXTS["notes.jsonl"][row["custom_id"]], f"{_TEXTS['notes.jsonl'][other['custom_id']]}  ({cosine:.2f})")
    same = sum(row["kept"]["group"] == other["kept"]["group"] for row, other, _ in nearest)
    groups = len({row["kept"]["group"] for row in results})
    _say(
        f"Above: the closest pairs by cosine. For {same} of {len(results)} notes the nearest other note is of the "
        f"same group (garden, trip, kitchen, ...: {groups} groups, which the model was not told)."
    )


def _nearest(row: dict[str, Any], rows: Results) -> tuple[dict[str, Any], dict[str, Any], float]:
    """The note, the other note closest to it, and their cosine (the vectors are normalized)."""
    mine = row["output"]["embedding"]
    others = ((other, sum(a * b for a, b in zip(mine, other["output"]["embedding"], strict=True))) for other in rows)
    other, cosine = max((pair for pair in others if pair[0] is not row), key=lambda pair: pair[1])
    return row, other, cosine


def _topic(row: dict[str, Any]) -> str:
    return str(row["output"]["labels"][0]["label"])


TOPICS = ("delivery", "billing", "hotel", "restaurant", "electronics", "clothing", "software", "books")

STEPS = (
    Step(
        "classify",
        "150 customer messages by topic",
        "reviews.jsonl",
        "topics.jsonl",
        MINILM,
        _show_topics,
        params={"labels": TOPICS},
        options=("--keep", "topic,sentiment"),
    ),
    Step(
        "embed",
        "60 notes as vectors",
        "notes.jsonl",
        "notes.jsonl",
        MINILM,
        _show_neighbours,
        options=("--keep", "group"),
    ),
    Step(
        "generate",
        "46 questions and beginnings",
        "questions.jsonl",
        "answers.jsonl",
        SMOLLM2,
        _show_answers,
        params={"max_new_tokens": 56},
    ),
    Step(
        "summarize",
        "24 articles in one or two sentences",
        "articles",
        "summaries.jsonl",
        SMOLLM2,
        _show_summaries,
        params={"length": "short"},
    ),
    Step(
        "translate",
        "80 sentences into German",
        "sentences_en.csv",
        "translations.csv",
        SMOLLM2,
        _show_translations,
        params={"source": "en", "target": "de", "max_new_tokens": 64},
        options=("--id-field", "id", "--keep", "domain,reference_de"),
    ),
)


# ----- the end -------------------------------------------------------------------------------------------------


def _sum_up(done: list[tuple[Step, dict[str, Any], bool]]) -> None:
    _heading("All results")
    line = "{:<11}{:<24}{:>6}{:>8}{:>10}{:>11}  {}"
    print(line.format("task", "model", "items", "failed", "items/s", "tokens/s", "results"))
    for step, job, _ in done:
        counts, rate = job["counts"], job["rate"]
        figures = (f"{rate['items_per_s']:.1f}", f"{rate['tokens_per_s']:.0f}")
        print(line.format(step.task, step.model, counts["total"], counts["error"], *figures, OUT / step.out))
    print()
    if reused := sum(again for _, _, again in done):
        _say(f"{reused} of these jobs were done before: their results were read again, the rates are of that time.\n")
    home = os.environ["TEXTMILL_HOME"]
    shell = f"export TEXTMILL_HOME={shlex.quote(home)}; export PATH={shlex.quote(str(TEXTMILL.parent))}:$PATH"
    print("What to type next:")
    for command in (
        shell,
        "textmill list                      # the jobs of this demo; `textmill status JOB` for one",
        f"textmill run summarize YOUR_FOLDER -o summaries.jsonl --model {SMOLLM2}",
        "textmill models add NAME FOLDER    # a better model: a folder with safetensors, or a Hub id",
        "textmill tasks                     # what else there is, with every parameter",
    ):
        print(f"  {command}")


def _job_of(step: Step) -> dict[str, Any]:
    """The job that the step's command just ran, or found again."""
    listing = subprocess.run([TEXTMILL, "list", "--json"], check=True, stdout=subprocess.PIPE, encoding="utf-8")
    jobs = [json.loads(line) for line in listing.stdout.splitlines()]
    params = json.loads(json.dumps(step.params))
    wanted = (step.task, step.model, params, "completed")
    return next(job for job in jobs if (job["task"], job["model"], job["params"], job["state"]) == wanted)


# ----- small things --------------------------------------------------------------------------------------------


def _textmill(*arguments: str, stdout: int | None = None) -> int:
    sys.stdout.flush()
    with subprocess.Popen([TEXTMILL, *arguments], stdout=stdout) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()  # the terminal interrupted it too; it puts its work away first
            raise


def _read(path: Path) -> Results:
    """The results that are ok, as the JSON they were written as; a CSV's cells are read back."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [json.loads(line) for line in stream] if path.suffix == ".jsonl" else list(_from_csv(stream))
    return [row for row in rows if row["status"] == "ok"]


def _from_csv(stream: Any) -> Iterator[dict[str, Any]]:
    for row in csv.DictReader(stream):
        yield {**row, "output": row, "kept": row}


def _texts(name: str) -> dict[str, str]:
    """The texts of an input by their ids."""
    with (ROOT / "examples" / name).open(encoding="utf-8", newline="") as stream:
        if name.endswith(".csv"):
            return {row["id"]: row["text"] for row in csv.DictReader(stream)}
        rows = [json.loads(line) for line in stream]
    return {row["custom_id"]: _text(row) for row in rows}


def _text(row: dict[str, Any]) -> str:
    return str(row.get("text") or row.get("prompt") or row["messages"][-1]["content"])


_TEXTS = {name: _texts(name) for name in ("reviews.jsonl", "sentences_en.csv", "questions.jsonl", "notes.jsonl")}


def _typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _width() -> int:
    return min(shutil.get_terminal_size().columns, 110)


def _heading(text: str) -> None:
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() and "NO_COLOR" not in os.environ else ("", "")
    print(f"\n{bold}{text}{plain}\n{'-' * _width()}")


def _say(text: str) -> None:
    print(textwrap.fill(text, _width(), break_long_words=False, break_on_hyphens=False))


def _pair(given: str, came: str, reference: str = "") -> None:
    """Input, output and (where there is one) a person's own answer, one below the other."""
    for mark, text, lines in (("in ", given, 2), ("out", came, 4), ("ref", reference, 2)):
        if text:
            shown = textwrap.wrap(" ".join(text.split()), _width() - 5, max_lines=lines, placeholder=" ...")
            print(f"{mark}  " + "\n     ".join(shown))
    print()


if __name__ == "__main__":
    sys.exit(main())
