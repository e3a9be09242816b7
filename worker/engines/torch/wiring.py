"""Encoder-decoder models of Transformers opened up: our attention, our positions, no cache of theirs.

The plain model runs over one row of many sequences laid end to end; what belongs together is decided by a desk, to
which each attention layer hands its queries, keys and values (registered attention functions, Transformers 5.23).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from worker.engines.torch.unfit import Unfit

ATTENTION = "textmill_desk"
ARCHITECTURES = frozenset(
    {"bart", "marian", "mbart", "pegasus", "m2m_100", "blenderbot", "blenderbot-small", "t5", "mt5"}
)
"""Model types that were tried; the self-check at load decides for each model."""
SELF = ("self_attn", "SelfAttention")
CROSS = ("encoder_attn", "EncDecAttention")


class Desk(Protocol):
    """Says who attends to whom, for one call of the encoder or the decoder."""

    positions: torch.Tensor
    """Position of each token [tokens] in its own sequence."""

    def attend(
        self, seat: "Seat", query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """Queries [tokens, heads, size] answered; keys and values [tokens, heads, size] of the same tokens, without
        meaning where the seat is one of cross-attention."""
        ...


class Seat(NamedTuple):
    """One attention layer's place in the model."""

    wiring: "Wiring"
    cross: bool
    layer: int


class Wiring:
    """A model whose attention and positions can be taken over for a while."""

    def __init__(self, model: Any) -> None:
        """Raises Unfit for a model that is built in another way than those known."""
        if model.config.model_type not in ARCHITECTURES:
            raise Unfit(f"{model.config.model_type} models are not among those tried")
        self.model = model
        self.desk: Desk = _NOBODY
        self._encoder, self._decoder = model.get_encoder(), model.get_decoder()
        encoder_seats = self._seated(self._encoder)
        seats = self._seated(self._decoder)
        self._attentions = [module for module, _ in (*encoder_seats, *seats)]
        self.crossings = [module for module, seat in seats if seat.cross]
        self.layers, self.source_layers = len(self.crossings), len(encoder_seats)
        self.calls = 0
        """How often attention was asked in the last call."""
        if not self.layers or 2 * self.layers != len(seats):
            raise Unfit("a decoder layer has not one attention to itself and one to the source")
        self.heads, self.size = _shape_of(self.crossings[0])
        owners = (*self._attentions, self._encoder, self._decoder)
        self._configs = {id(module.config): module.config for module in owners}
        self.source_bias = _take_over_bias(self, encoder_seats[0][0])
        self.target_bias = _take_over_bias(self, next(module for module, seat in seats if not seat.cross))
        for stack in (self._encoder, self._decoder):
            if hasattr(stack, "embed_positions"):
                stack.embed_positions = Positions(self, stack.embed_positions)
        weight = next(model.parameters())
        self.dtype, self.device = weight.dtype, weight.device
        self._nothing = torch.zeros(1, self.heads, 1, self.size, dtype=self.dtype, device=self.device)
        self._no_source = BaseModelOutput(self._nothing.view(1, 1, -1).new_zeros(1, 1, model.config.d_model))

    def encode(self, ids: torch.Tensor, desk: Desk) -> torch.Tensor:
        """Hidden states [tokens, width] of source tokens [tokens]."""
        with self._at(desk):
            hidden: torch.Tensor = self._encoder(input_ids=ids[None]).last_hidden_state[0]
        return hidden

    def decode(self, ids: torch.Tensor, desk: Desk) -> torch.Tensor:
        """Logits [tokens, words] of decoder tokens [tokens]."""
        cache = _Given(self._nothing, self.layers)
        with self._at(desk):
            logits: torch.Tensor = self.model(
                encoder_outputs=self._no_source, decoder_input_ids=ids[None], past_key_values=cache, use_cache=True
            ).logits[0]
        return logits

    def plain(self, source: list[int], written: list[int]) -> torch.Tensor:
        """Logits [tokens, words] of decoder tokens as the model gives them when it is left alone."""
        source_ids, written_ids = (torch.tensor([each], device=self.device) for each in (source, written))
        logits: torch.Tensor = self.model(input_ids=source_ids, decoder_input_ids=written_ids).logits[0]
        return logits

    def cross(self, layer: int, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [tokens, heads, size] that a layer's cross-attention makes of the source's hidden states."""
        module = self.crossings[layer]
        key, value = (module.k_proj, module.v_proj) if hasattr(module, "k_proj") else (module.k, module.v)
        shape = (len(hidden), self.heads, self.size)
        return key(hidden).view(shape), value(hidden).view(shape)

    def release(self) -> None:
        """Leave the model as it was, and hold it no longer."""
        for module in self._attentions:
            del module.textmill_seat
            vars(module).pop("compute_bias", None)
        for stack in (self._encoder, self._decoder):
            if isinstance(getattr(stack, "embed_positions", None), Positions):
                stack.embed_positions = stack.embed_positions.own
        vars(self).clear()

    @contextmanager
    def _at(self, desk: Desk) -> Iterator[None]:
        before = [config._attn_implementation for config in self._configs.values()]
        self.desk, self.calls = desk, 0
        try:
            for config in self._configs.values():
                config._attn_implementation = ATTENTION
            yield
        finally:
            self.desk = _NOBODY
            for config, implementation in zip(self._configs.values(), before, strict=True):
                config._attn_implementation = implementation

    def _seated(self, stack: Any) -> list[tuple[Any, Seat]]:
        found = list[tuple[Any, Seat]]()
        for name, module in stack.named_modules():
            last = name.rpartition(".")[2]
            if last in (*SELF, *CROSS):
                seat = Seat(self, last in CROSS, sum(each.cross == (last in CROSS) for _, each in found))
                module.textmill_seat = seat
                found.append((module, seat))
        return found


class Positions(nn.Module):
    """A table of positions that is read where the desk says; without one, as the model itself would."""

    def __init__(self, wiring: Wiring, own: Any) -> None:
        super().__init__()
        self.own = own
        self._wiring = [wiring]  # in a list, which torch does not look into for weights

    def forward(self, *given: Any, **named: Any) -> torch.Tensor:
        desk = self._wiring[0].desk
        if desk is _NOBODY:
            made: torch.Tensor = self.own(*given, **named)
            return made
        if hasattr(self.own, "weights"):  # M2M100: counted from the padding token's place, which it keeps for itself
            pad = self.own.padding_idx
            at = torch.where(given[0][0] == pad, pad, desk.positions + pad + 1)
            return self.own.weights[at][None]  # type: ignore[no-any-return]
        found: torch.Tensor = self.own.weight[desk.positions + getattr(self.own, "offset", 0)]
        return found[None]


class RelativeBias:
    """T5's bias by distance, in place of its square over all tokens of a call."""

    def __init__(self, wiring: Wiring, attention: Any) -> None:
        self._wiring, self._attention, self._own = wiring, attention, attention.compute_bias
        self.device: torch.device = attention.relative_attention_bias.weight.device

    def __call__(self, *given: Any, **named: Any) -> torch.Tensor:
        if self._wiring.desk is _NOBODY:
            made: torch.Tensor = self._own(*given, **named)
            return made
        weight: torch.Tensor = self._attention.relative_attention_bias.weight
        return weight.new_zeros(1, self._wiring.heads, 1, 1)

    def between(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """The bias [heads, ...] between positions of queries and of keys, which broadcast."""
        module = self._attention
        buckets = module._relative_position_bucket(
            keys - queries,
            bidirectional=not module.is_decoder,
            num_buckets=module.relative_attention_num_buckets,
            max_distance=module.relative_attention_max_distance,
        )
        bias: torch.Tensor = module.relative_attention_bias(buckets).movedim(-1, 0)
        return bias


class _Nobody:
    """The desk of a model that is left to itself."""

    positions = torch.empty(0)

    def attend(self, *given: Any) -> torch.Tensor:
        raise RuntimeError("a desk's attention was called outside of a desk's call")


_NOBODY = _Nobody()


class _Layer(NamedTuple):
    keys: torch.Tensor
    values: torch.Tensor


class _PassThrough(Cache):  # type: ignore[misc]
    """Keeps nothing: each layer gets back what it has just made."""

    def __init__(self, nothing: torch.Tensor, layers: int) -> None:
        super().__init__(layers=[_Layer(nothing, nothing)] * layers)

    def update(self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


class _Given(EncoderDecoderCache):  # type: ignore[misc]
    """Says that the source's keys and values are there already, so that no layer makes them again."""

    def __init__(self, nothing: torch.Tensor, layers: int) -> None:
        super().__init__(_PassThrough(nothing, layers), _PassThrough(nothing, layers))
        self.is_updated = dict.fromkeys(range(layers), True)


def _attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """`query` [1, heads, tokens, size] and the rest as the model's layers have them."""
    seat: Seat = module.textmill_seat
    seat.wiring.calls += 1
    asked, keys, values = (each[0].transpose(0, 1) for each in (query, key, value))
    return seat.wiring.desk.attend(seat, asked, keys, values, kwargs["scaling"])[None], None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attend)


def _shape_of(attention: Any) -> tuple[int, int]:
    if hasattr(attention, "n_heads"):
        return attention.n_heads, attention.key_value_proj_dim
    return attention.num_heads, attention.head_dim


def _take_over_bias(wiring: Wiring, attention: Any) -> RelativeBias | None:
    if not getattr(attention, "has_relative_attention_bias", False):
        return None
    attention.compute_bias = RelativeBias(wiring, attention)
    return attention.compute_bias  # type: ignore[no-any-return]
