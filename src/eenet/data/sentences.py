"""Tokenized sentences in memory."""

import hashlib
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset

from eenet.files import atomic

Batch = tuple[dict[str, Tensor], Tensor]


@dataclass
class Sentences(Dataset[Batch]):
    """Tokens of all sentences one after the other; hands out padded batches.

    Args:
        tokens: All tokens `[T]`, int32.
        starts: Where each sentence begins `[N]`.
        lengths: Tokens of each sentence `[N]`.
        labels: Classes `[N]`.
        pad: The padding token.
    """

    tokens: Tensor
    starts: Tensor
    lengths: Tensor
    labels: Tensor
    pad: int

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, index: Tensor) -> "Sentences":
        """Some of the sentences, on the same tokens."""
        fields = {name: getattr(self, name)[index] for name in ("starts", "lengths", "labels")}
        return replace(self, **fields)

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        """The batch of these sentences, padded to the longest of them."""
        index = torch.as_tensor(indices)
        starts, lengths = self.starts[index, None], self.lengths[index, None]
        steps = torch.arange(int(lengths.max()))
        mask = steps < lengths
        tokens = self.tokens[(starts + steps).clamp(max=len(self.tokens) - 1)].long()
        tokens = tokens.masked_fill(~mask, self.pad)
        return {"input_ids": tokens, "attention_mask": mask.long()}, self.labels[index]


def tokenize(
    texts: Sequence[str], labels: Tensor, tokenizer: Any, max_length: int, where: str
) -> Sentences:
    """Tokenizes texts with special tokens, cut at `max_length` tokens.

    The tokens are kept in the cache of `datasets` and found again by the texts themselves, the
    tokenizer's content and the length.

    Args:
        texts: N texts.
        labels: Their classes `[N]`.
        tokenizer: A tokenizer of transformers.
        max_length: Maximum number of tokens of a sentence.
        where: What to call the data while they are tokenized.
    """
    from datasets import config

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()  # calls leave these behind, which would change the name
        backend.no_padding()
    content = hashlib.sha256(backend.to_str().encode() if backend else pickle.dumps(tokenizer))
    content.update(str(max_length).encode())
    for text in texts:
        data = text.encode()
        content.update(len(data).to_bytes(8, "little") + data)
    path = Path(config.HF_DATASETS_CACHE) / "eenet-tokens" / f"{content.hexdigest()}.safetensors"
    try:
        saved = load_file(path)
    except (OSError, SafetensorError):  # missing, or truncated
        saved = _tokens(texts, tokenizer, max_length, f"Tokenizing {where}")
        with atomic(path) as temporary:
            save_file(saved, temporary)
    lengths = saved["lengths"]
    starts = lengths.cumsum(0) - lengths
    return Sentences(saved["tokens"], starts, lengths, labels, tokenizer.pad_token_id or 0)


def _tokens(texts: Sequence[str], tokenizer: Any, max_length: int, title: str) -> dict[str, Tensor]:
    tokens, lengths, size = [], [], 1000
    parts = range(0, len(texts), size)
    console = Console(stderr=True)
    for start in track(parts, title, console=console, disable=len(parts) < 10):
        part = list(texts[start : start + size])
        ids = tokenizer(part, truncation=True, max_length=max_length)["input_ids"]
        lengths += [len(sentence) for sentence in ids]
        tokens.append(torch.tensor([*chain.from_iterable(ids)], dtype=torch.int32))
    return {"tokens": torch.cat(tokens), "lengths": torch.tensor(lengths, dtype=torch.int64)}


def require_known(tokens: Tensor, texts: int, tokenizer: Any, where: str) -> None:
    """Refuses the tokens of N texts if most of them are the unknown token (`ValueError`)."""
    words = tokens.numel() - texts * tokenizer.num_special_tokens_to_add()
    unknown = int((tokens == tokenizer.unk_token_id).sum()) if tokenizer.unk_token else 0
    if 2 * unknown > words:
        raise ValueError(
            f"tokenizer: {unknown} of the {words} tokens of {where} are "
            f"{tokenizer.unk_token}; its vocabulary is not that of this language, or was not loaded"
        )
