"""Tokenised sentences in memory."""

from collections.abc import Sequence
from pathlib import Path
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
        tokens = tokens.masked_fill(~mask, self.pad)
        return {"input_ids": tokens, "attention_mask": mask.long()}, self.labels[index]


def tokenise(
    table: Any, column: str, labels: Tensor, tokenizer: Any, max_length: int, where: str
) -> Sentences:
    """Tokenises a table's texts with special tokens, cut at `max_length` tokens.

    The tokens are kept in the cache of `datasets` and found again by the table's content, the
    tokenizer's and the length.

    Args:
        table: A `datasets.Dataset` of N rows.
        column: Its column of texts.
        labels: Their classes `[N]`.
        tokenizer: A tokenizer of transformers.
        max_length: Most tokens of a sentence.
        where: What to call the data in an error.

    Raises:
        ValueError: If most tokens are the unknown token.
    """
    from datasets import config
    from datasets.fingerprint import Hasher

    def ids(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        cut = tokenizer(rows[column], truncation=True, max_length=max_length)
        return {"ids": cut["input_ids"]}

    knows = backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()  # calls leave these behind, which would change the name
        backend.no_padding()
        knows = backend.to_str()
    name = Hasher.hash((table._fingerprint, column, knows or tokenizer, max_length))
    folder = Path(config.HF_DATASETS_CACHE) / "eenet-tokens"
    folder.mkdir(parents=True, exist_ok=True)
    encoded = table.select_columns(column).map(
        ids,
        batched=True,
        remove_columns=column,
        cache_file_name=str(folder / f"{name}.arrow"),
        new_fingerprint=name,
        desc=f"Tokenising {where}",
    )
    lists = encoded.data.column("ids").combine_chunks()
    lengths = torch.tensor(lists.value_lengths().to_numpy(), dtype=torch.int64)
    tokens = torch.tensor(lists.flatten().to_numpy(), dtype=torch.int32)
    require_known(tokens, len(table), tokenizer, where)
    starts = lengths.cumsum(0) - lengths
    return Sentences(tokens, starts, lengths, labels, tokenizer.pad_token_id or 0)


def require_known(tokens: Tensor, texts: int, tokenizer: Any, where: str) -> None:
    """Refuses the tokens of N texts if most of them are the unknown token (`ValueError`)."""
    padding = int((tokens == tokenizer.pad_token_id).sum())
    words = tokens.numel() - padding - texts * tokenizer.num_special_tokens_to_add()
    unknown = int((tokens == tokenizer.unk_token_id).sum()) if tokenizer.unk_token else 0
    if 2 * unknown > words:
        raise ValueError(
            f"tokenizer: {unknown} of the {words} tokens of {where} are "
            f"{tokenizer.unk_token}; its vocabulary is not that of this language, or was not loaded"
        )
