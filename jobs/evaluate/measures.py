"""Which figures suit the outputs of a task."""

from collections.abc import Mapping

from jobs.errors import InvalidInput
from jobs.evaluate.labels import entities, labelled
from jobs.evaluate.measured import Measure
from jobs.evaluate.rankings import rankings
from jobs.evaluate.texts import answers, first_answer, masks, summaries, translations

THRESHOLD = 0.5
"""Score from which a label counts as given, where items may have several."""
RANKS = 10
"""Documents from the top that a ranking is judged by."""


def measure_for(task: str, *, threshold: float = THRESHOLD, ranks: int = RANKS) -> Measure:
    """What is measured of a task's results. Raises InvalidInput for a task whose outputs have no gold."""
    ranked = {"classify": "labels", "zero_shot": "labels", "detect_language": "languages"}
    if task in ranked:
        return lambda some: labelled(some, ranked[task], threshold)
    measures: Mapping[str, Measure] = {
        "ner": entities,
        "qa": lambda some: answers(some, first_answer),
        "generate": lambda some: answers(some, lambda output: output["generations"][0]["generated_text"]),
        "fill_mask": masks,
        "summarize": summaries,
        "translate": translations,
        "rerank": lambda some: rankings(some, ranks),
    }
    if task not in measures:
        known = ", ".join(sorted([*measures, *ranked]))
        raise InvalidInput(f"results of {task} cannot be evaluated; those of these can: {known}")
    return measures[task]
