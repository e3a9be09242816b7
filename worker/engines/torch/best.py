"""The best few of very many scores: found in the blocks that hold the largest, which reads the rest only once."""

import torch

BLOCK = 64


def best(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and columns [rows, k] of the largest of `scores` [rows, columns], the best first."""
    rows, columns = scores.shape
    blocks = columns // BLOCK
    if blocks <= 2 * k:
        return tuple(scores.topk(min(k, columns)))  # type: ignore[return-value]
    whole, rest = scores[:, : blocks * BLOCK].view(rows, blocks, BLOCK), scores[:, blocks * BLOCK :]
    where = whole.amax(-1).topk(k).indices
    near = whole.gather(1, where[..., None].expand(rows, k, BLOCK)).flatten(1)
    at = (where[..., None] * BLOCK + torch.arange(BLOCK, device=scores.device)).flatten(1)
    if columns > blocks * BLOCK:
        tail = torch.arange(blocks * BLOCK, columns, device=scores.device).expand(rows, -1)
        near, at = torch.cat([near, rest], 1), torch.cat([at, tail], 1)
    values, places = near.topk(k)
    return values, at.gather(1, places)
