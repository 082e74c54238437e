"""Transformer encoders for text classification with exits after chosen layers."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from eenet.extras import require
from eenet.models.base import MultiExitNetwork, check_exits, null_is_none

_State = tuple[Tensor, Tensor]


class TransformerEncoder(MultiExitNetwork):
    """BERT, MiniLM, RoBERTa or DistilBERT with a pooler and a classifier at each exit.

    Embeddings and layers are those of transformers, run one by one, so that a sentence that leaves
    costs no further layer. An input batch is a dict of `input_ids [B, T]` (int64) and optionally
    `attention_mask [B, T]` (1 for tokens, 0 for padding) and `token_type_ids [B, T]`. The state is
    the hidden states `[B, T, D]` with the mask `[B, T]`. EENet's "BERT-4" (Ilhan et al. 2024) is
    `name_or_path="bert-base-uncased"` with the default exits.

    Args:
        name_or_path: Name on the Hugging Face hub, or a folder with the configuration and weights.
        config: Instead of that, the configuration of an encoder with random weights:
            `model_type` and the options of its class in transformers.
        exits: After which layers (counted from 1) an exit stands, increasing; the last must be
            the last layer.
        num_classes: Number of classes.
        dropout: Dropout between pooler and classifier.
        pooling: What the pooler sees: "first" token, as in BERT and the paper, or the "mean" over
            the tokens, for which sentence encoders like MiniLM were trained.

    Raises:
        ModuleNotFoundError: If transformers is not installed.
        ValueError: If not exactly one of `name_or_path` and `config` is given, it cannot be
            loaded or is of an unknown type, or the exits are not as described. In `forward`, if
            sentences are longer than the encoder has positions for, or a token is beyond its
            embeddings.
    """

    channel_dim = -1

    def __init__(
        self,
        name_or_path: str | None = None,
        config: dict[str, Any] | None = None,
        exits: Sequence[int] = (3, 6, 9, 12),
        num_classes: int = 2,
        dropout: float = 0.1,
        pooling: Literal["first", "mean"] = "first",
    ) -> None:
        name_or_path = null_is_none(name_or_path)
        model = _load(name_or_path, config)
        kind = model.config.model_type
        if kind not in ("bert", "roberta", "xlm-roberta", "distilbert"):
            raise ValueError(
                f"model_type={kind!r} is not supported: give a BERT (MiniLM is one), RoBERTa or "
                "DistilBERT encoder"
            )
        layers = (model.transformer if kind == "distilbert" else model.encoder).layer
        exits = check_exits(exits, len(layers))
        parts = [layers[start:end] for start, end in pairwise([0, *exits])]
        stages: list[nn.Module] = [_Layers(part, model.config) for part in parts]
        # In the first stage, so that the embeddings count as a cost of the first exit.
        stages[0] = nn.Sequential(_Embeddings(model.embeddings, model.config), stages[0])
        heads = [_Head(model.config, num_classes, dropout, pooling) for _ in exits]
        pooler = getattr(model, "pooler", None)
        if name_or_path is not None and pooler is not None and pooling == "first":
            # As in DeeBERT's code (Xin et al. 2020), each exit starts from the pretrained pooler.
            for head in heads:
                head.dense.load_state_dict(pooler.dense.state_dict())
        super().__init__(stages, heads, num_classes)
        whole = json.loads(model.config.to_json_string(use_diff=False))
        self.encoder = repr(name_or_path or kind)
        self.restore_args = {"name_or_path": None, "config": whole}
        self.train()  # transformers hands out pretrained weights in evaluation mode

    def check_data(self, data: Any) -> None:
        """Refuses texts whose tokenizer or length goes beyond the encoder's embeddings."""
        embeddings: Any = self.stages[0][0]  # type: ignore[index]
        tokens, rows = getattr(data, "num_tokens", 0), embeddings.num_tokens
        if tokens > rows:
            raise ValueError(
                f"tokenizer={data.tokenizer!r} has {tokens} tokens, but the encoder {self.encoder} "
                f"has embeddings for {rows}: give the tokenizer that belongs to the encoder"
            )
        if (length := getattr(data, "max_length", 0)) > embeddings.max_length:
            raise ValueError(
                f"max_length={length} of the data is more than the {embeddings.max_length} tokens "
                f"per sentence that the encoder {self.encoder} takes"
            )

    def begin(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adds the mask where none is given."""
        return {"attention_mask": torch.ones_like(x["input_ids"]), **x}

    def narrow(self, state: Any, keep: Tensor) -> Any:
        """Cuts off what is padding in every sentence that stays."""
        if isinstance(state, dict):
            return super().narrow(state, keep)
        hidden, mask = state
        mask = mask[keep]
        end = int(mask.any(0).nonzero().max()) + 1
        return hidden[keep, :end], mask[:, :end]

    def join(self, states: Sequence[Any]) -> Any:
        """Pads all to the longest."""
        leaves = [pytree.tree_leaves(state) for state in states]
        longest = max(tensors[0].shape[1] for tensors in leaves)

        def padded(tensor: Tensor) -> Tensor:
            short = longest - tensor.shape[1]
            return F.pad(tensor, [0, 0] * (tensor.dim() - 2) + [0, short]) if short else tensor

        return super().join([pytree.tree_map(padded, state) for state in states])


class _Embeddings(nn.Module):
    """Turns the input batch into the state."""

    def __init__(self, embeddings: nn.Module, config: Any) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.token_types = config.model_type != "distilbert"
        # RoBERTa counts positions from behind the index of its padding token.
        used = config.pad_token_id + 1 if "roberta" in config.model_type else 0
        self.max_length = config.max_position_embeddings - used
        self.num_tokens: int = config.vocab_size

    def forward(self, batch: dict[str, Tensor]) -> _State:
        ids = batch["input_ids"]
        if ids.shape[1] > self.max_length:
            raise ValueError(
                f"input_ids has {ids.shape[1]} tokens per sentence, but the encoder takes at most "
                f"{self.max_length}: truncate (max_length of the data)"
            )
        types = {"token_type_ids": batch.get("token_type_ids")} if self.token_types else {}
        try:
            return self.embeddings(ids, **types), batch["attention_mask"]
        except IndexError as error:
            raise ValueError(
                f"input_ids from {int(ids.min())} to {int(ids.max())}: the encoder has embeddings "
                f"for 0 to {self.num_tokens - 1} (and token_type_ids must be 0 or 1); give the "
                "tokenizer that belongs to the encoder"
            ) from error


class _Layers(nn.Module):
    """Runs some of the encoder's layers."""

    def __init__(self, layers: nn.ModuleList, config: Any) -> None:
        super().__init__()
        self.layers, self.config = layers, config

    def forward(self, state: _State) -> _State:
        from transformers.masking_utils import create_bidirectional_mask

        hidden, mask = state
        # Never left out where nothing is padded: to find that out, a GPU would have to wait.
        attention = create_bidirectional_mask(
            self.config, hidden, mask, allow_is_bidirectional_skip=False
        )
        for layer in self.layers:
            hidden = layer(hidden, attention)
        return hidden, mask


class _Head(nn.Module):
    """BERT's pooler (dense and tanh), dropout and a linear classifier."""

    def __init__(self, config: Any, num_classes: int, dropout: float, pooling: str) -> None:
        super().__init__()
        self.pooling = pooling
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(config.hidden_size, num_classes)
        for linear in (self.dense, self.classifier):
            nn.init.normal_(linear.weight, std=config.initializer_range)
            nn.init.zeros_(linear.bias)

    def forward(self, state: _State) -> Tensor:
        hidden, mask = state
        if self.pooling == "first":
            summary = hidden[:, 0]
        else:
            tokens = mask[:, :, None].to(hidden.dtype)
            summary = (hidden * tokens).sum(1) / tokens.sum(1)
        logits: Tensor = self.classifier(self.dropout(torch.tanh(self.dense(summary))))
        return logits


def _load(name_or_path: str | None, config: dict[str, Any] | None) -> Any:
    transformers = require("transformers", "text")
    if (name_or_path is None) == (config is None):
        raise ValueError(
            f"give either name_or_path (got {name_or_path!r}) or config (got {config!r})"
        )
    given = f"name_or_path={name_or_path!r}" if config is None else f"config={config!r}"
    try:
        if config is None:
            return transformers.AutoModel.from_pretrained(name_or_path, dtype=torch.float32)
        return transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**config))
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"no encoder can be loaded from {given}: {error}") from error
