"""What Textmill adds to a real model: a MiniLM-size encoder (random weights) through a worker, and the same engine
called directly with the same requests, in turns, in the same run."""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.deployment import DATABASES, deployment
from benchmarks.report import show
from benchmarks.texts import WORDS, mixed
from jobs import Client
from jobs.models import ModelSpec
from jobs.settings import Settings
from jobs.tasks.base import Embed, Failed
from worker.engines import engine
from worker.engines.base import Encoded, Room, Work

TEXTS, ROUNDS = 5_000, 3
TIMEOUT_S = 1800.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument("--texts", type=int, default=TEXTS)
    asked = parser.parse_args()
    texts = mixed(asked.texts)
    with tempfile.TemporaryDirectory(prefix="textmill-model-") as folder:
        spec = build(Path(folder))
        rows = [measure(database, spec, texts) for database in asked.databases]
    show("overhead", rows, note=f"{asked.texts:,} texts, medians of {ROUNDS} alternating rounds")


def build(folder: Path) -> ModelSpec:
    """A BERT of MiniLM's size with random weights and a word-level vocabulary, saved in `folder`."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(dict.fromkeys([*special, *WORDS])), encoding="utf-8")
    BertTokenizerFast(vocab_file=str(vocabulary), model_max_length=512).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    BertModel(BertConfig(vocab_size=30_522, **shape)).eval().save_pretrained(folder)
    return ModelSpec(name="mini", path=str(folder), kind="encoder", tasks=("embed",), head="embed")


def measure(database: str, spec: ModelSpec, texts: list[str]) -> dict[str, object]:
    with deployment(database) as running:
        running.store.models.put(spec)
        running.start_worker()
        client = Client(running.settings)
        client.submit("embed", texts[:64], model=spec.name).wait(timeout=TIMEOUT_S)
        direct = Direct(running.settings, spec)
        direct.run(texts[:64])
        pairs = [(direct.run(texts), through(client, spec, texts)) for _ in range(ROUNDS)]
        direct.close()
    alone, whole = (statistics.median(each) for each in zip(*pairs, strict=True))
    return {
        "database": database,
        "engine directly, s": alone,
        "through Textmill, s": whole,
        "texts/s": round(len(texts) / whole),
        "share, %": (whole / alone - 1) * 100,
        "share of each round, %": ", ".join(f"{(b / a - 1) * 100:.1f}" for a, b in pairs),
    }


def through(client: Client, spec: ModelSpec, texts: list[str]) -> float:
    """Seconds from the moment the job may be claimed to its end."""
    job = client.submit("embed", texts, model=spec.name).wait(timeout=TIMEOUT_S)
    if job.counts.ok != len(texts) or job.finished_at is None or job.sealed_at is None:
        raise RuntimeError(f"the job ended otherwise: {job}")
    return (job.finished_at - job.sealed_at).total_seconds()


class Direct:
    """The engine in this process, asked for the same outcomes."""

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        import os

        import torch

        threads = settings.threads or len(os.sched_getaffinity(0))
        torch.set_num_threads(threads)
        own = engine(spec.engine)
        self._codec = own.codec(spec)
        room = Room("cpu", 8 * 2**30, threads, settings.max_batch_tokens, settings.dtype)
        self._model: Any = own.load(spec, self._codec, room)

    def run(self, texts: list[str]) -> float:
        """Seconds for tokenizing and running all `texts`, in arrival order within the model's own look-ahead."""
        start = time.perf_counter()
        encoded = self._codec.encode([Embed(text) for text in texts])
        waiting = [Work(seq, each, seq) for seq, each in enumerate(_sound(encoded))]
        waiting.reverse()
        done = 0
        while done < len(texts):
            self._model.add(_up_to(self._model.wants(), waiting))
            done += len(self._model.step())
        return time.perf_counter() - start

    def close(self) -> None:
        self._model.close()


def _sound(encoded: list[Encoded | Failed]) -> list[Encoded]:
    return [each for each in encoded if isinstance(each, Encoded)]


def _up_to(tokens: int, waiting: list[Work]) -> list[Work]:
    """The next works, worth about `tokens`."""
    taken: list[Work] = []
    while waiting and tokens > 0:
        taken.append(waiting.pop())
        tokens -= taken[-1].encoded.length
    return taken


if __name__ == "__main__":
    main()
