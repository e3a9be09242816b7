"""Encoders with padding: the plain way, for every architecture and device."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch


class Ids(NamedTuple):
    """A text as the model reads it."""

    ids: list[int]
    types: list[int]
    """Segment of each token; all 0 but for the second text of a pair."""


def per_token(made: Any) -> torch.Tensor:
    """What a head says of each token, [texts, tokens, labels]; of one for answers, where they begin and end."""
    found: torch.Tensor = (
        made.logits if hasattr(made, "logits") else torch.stack((made.start_logits, made.end_logits), dim=-1)
    )
    return found


class PaddedReader:
    """Reads texts side by side, each padded to the longest."""

    def __init__(self, model: Any, *, pad: int, has_types: bool, device: torch.device) -> None:
        self._model, self._pad, self._has_types, self._device = model, pad, has_types, device

    def hidden(self, texts: Sequence[Ids]) -> list[torch.Tensor]:
        """Token vectors [tokens, width] of each text."""
        found = self._model(**self._given(texts)).last_hidden_state
        return [row[: len(text.ids)] for row, text in zip(found, texts, strict=True)]

    def logits(self, texts: Sequence[Ids]) -> torch.Tensor:
        """What the model's head says of each text: [texts, labels]."""
        logits: torch.Tensor = self._model(**self._given(texts)).logits
        return logits

    def logits_of_tokens(self, texts: Sequence[Ids]) -> list[torch.Tensor]:
        """What the model's head says of each token: [tokens, labels] of each text, on the CPU."""
        found = per_token(self._model(**self._given(texts))).cpu()
        return [row[: len(text.ids)] for row, text in zip(found, texts, strict=True)]

    def logits_at(self, texts: Sequence[Ids], places: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """What the model's head says at some places of each text: [places, words]."""
        found = self._model(**self._given(texts)).logits
        return [rows[list(some)] for rows, some in zip(found, places, strict=True)]

    def _given(self, texts: Sequence[Ids]) -> dict[str, torch.Tensor]:
        width = max(len(text.ids) for text in texts)
        ids = torch.full((len(texts), width), self._pad)
        mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text.ids)] = torch.tensor(text.ids)
            types[row, : len(text.ids)] = torch.tensor(text.types)
            mask[row, : len(text.ids)] = 1
        given = {"input_ids": ids.to(self._device), "attention_mask": mask.to(self._device)}
        return given | ({"token_type_ids": types.to(self._device)} if self._has_types else {})
