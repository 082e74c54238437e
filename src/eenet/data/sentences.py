"""Tokenised sentences in memory."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

Batch = tuple[dict[str, Tensor], Tensor]


class Sentences(Dataset[Batch]):
    """Tokens of all sentences one after the other; hands out padded batches.

    Args:
        tokens: All tokens `[T]`, int32.
        starts: Where each sentence begins `[N]`.
        lengths: Tokens of each sentence `[N]`.
        labels: Classes `[N]`.
        pad: The padding token.
    """

    def __init__(
        self, tokens: Tensor, starts: Tensor, lengths: Tensor, labels: Tensor, pad: int
    ) -> None:
        self.tokens, self.starts, self.lengths = tokens, starts, lengths
        self.labels, self.pad = labels, pad

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, index: Tensor) -> "Sentences":
        """Some of the sentences, on the same tokens."""
        return Sentences(
            self.tokens, self.starts[index], self.lengths[index], self.labels[index], self.pad
        )

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        """The batch of these sentences, padded to the longest of them."""
        index = torch.as_tensor(indices)
        starts, lengths = self.starts[index, None], self.lengths[index, None]
        steps = torch.arange(int(lengths.max()))
        mask = steps < lengths
        tokens = self.tokens[(starts + steps).clamp(max=len(self.tokens) - 1)].long()
        batch = {
            "input_ids": tokens.masked_fill(~mask, self.pad),
            "attention_mask": mask.long(),
        }
        return batch, self.labels[index]


def tokenise(
    texts: list[str], labels: Tensor, tokenizer: Any, max_length: int, where: str
) -> Sentences:
    """Tokenises texts with special tokens, cut at `max_length` tokens.

    Args:
        texts: N texts.
        labels: Their classes `[N]`.
        tokenizer: A tokenizer of transformers.
        max_length: Most tokens of a sentence.
        where: What to call the data in an error.

    Raises:
        ValueError: If most tokens are the unknown token.
    """
    encoded = tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False)[
        "input_ids"
    ]
    lengths = torch.tensor([len(ids) for ids in encoded])
    tokens = torch.tensor([token for ids in encoded for token in ids], dtype=torch.int32)
    words = len(tokens) - len(texts) * tokenizer.num_special_tokens_to_add()
    unknown = int((tokens == tokenizer.unk_token_id).sum()) if tokenizer.unk_token else 0
    if 2 * unknown > words:
        raise ValueError(
            f"tokenizer: {unknown} of the {words} tokens of {where} are "
            f"{tokenizer.unk_token}; its vocabulary is not that of this language, or was not loaded"
        )
    starts = lengths.cumsum(0) - lengths
    return Sentences(tokens, starts, lengths, labels, tokenizer.pad_token_id or 0)
