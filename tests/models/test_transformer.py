"""Transformers against those of the package, and what inputs they take."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.models.networks import BERT, DISTILBERT, ROBERTA, sentences
from torch import Tensor

from eenet.models import (
    MultiExitNetwork,
    TransformerEncoder,
)


@pytest.mark.parametrize("config", [BERT, ROBERTA, DISTILBERT], ids=lambda c: c["model_type"])
def test_last_hidden_state_is_transformers(config: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**config)).eval()
    torch.manual_seed(0)
    ours = TransformerEncoder(config=config, exits=[1, 3]).eval()
    x = sentences()
    state = ours.begin(x)
    with torch.no_grad():
        for k in range(2):
            _, state = ours.step(k, state)
        expected = theirs(**x).last_hidden_state
    # What stands at padded places is never read.
    tokens = x["attention_mask"].bool()
    torch.testing.assert_close(state[0][tokens], expected[tokens], rtol=0, atol=1e-5)


def test_transformer_from_a_folder(tmp_path: Any) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**BERT))
    theirs.save_pretrained(tmp_path)
    ours = TransformerEncoder(str(tmp_path), exits=[1, 3]).eval()
    x = sentences()
    with torch.no_grad():
        pooled = torch.tanh(ours.heads[-1].dense(run_hidden(ours, x)[:, 0]))
        expected = theirs.eval()(**x).pooler_output
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-5)


def run_hidden(net: MultiExitNetwork, x: Any) -> Tensor:
    state = net.begin(x)
    for stage in net.stages:
        state = stage(state)
    hidden: Tensor = state[0]
    return hidden


def test_mask_and_token_types_are_optional() -> None:
    net = TransformerEncoder(config=BERT, exits=[1, 3]).eval()
    ids = sentences()["input_ids"]
    full = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        logits = net({"input_ids": ids})
        torch.testing.assert_close(net(full), logits)
        torch.testing.assert_close(net(full | {"token_type_ids": torch.zeros_like(ids)}), logits)
        assert not torch.allclose(net(full | {"token_type_ids": torch.ones_like(ids)}), logits)


def test_a_stage_costs_no_later_layer() -> None:
    net = TransformerEncoder(config=BERT, exits=[1, 3]).eval()
    calls: list[str] = []
    for name, module in net.named_modules():
        if name.rpartition(".")[0].endswith(".layers"):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    net.step(0, net.begin(sentences()))
    assert len(calls) == 1


def test_long_sentences_are_named() -> None:
    net = TransformerEncoder(config=ROBERTA | {"max_position_embeddings": 8}, exits=[3])
    with pytest.raises(ValueError, match=r"7 tokens per sentence.*at most 6"):
        net(sentences())


def test_what_the_encoder_has_no_embeddings_for_is_refused(tmp_path: Any) -> None:
    net = TransformerEncoder(config=BERT, exits=[1, 3])
    x = sentences()
    with pytest.raises(ValueError, match=r"from \d+ to 40: the encoder has.* 0 to 39.*tokenizer"):
        net({"input_ids": torch.full_like(x["input_ids"], 40)})
    net.check_data(SimpleNamespace(tokenizer="own", num_tokens=40, max_length=512))
    net.check_data(None)  # loaders without a data module
    with pytest.raises(ValueError, match=r"tokenizer='own' has 41 tokens.*encoder 'bert' .* 40"):
        net.check_data(SimpleNamespace(tokenizer="own", num_tokens=41))
    with pytest.raises(ValueError, match=r"max_length=513 .* 512"):
        net.check_data(SimpleNamespace(max_length=513))
