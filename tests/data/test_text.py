import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from eenet import data
from eenet.callbacks.collect import CollectOutputs
from eenet.callbacks.reproducibility import SeedEpochs
from eenet.data import TextClassification
from eenet.models import TransformerEncoder
from eenet.modules.multi_exit import MultiExitModule
from eenet.outputs import load_outputs

datasets = pytest.importorskip("datasets")
transformers = pytest.importorskip("transformers")

WORDS = ["a", "good", "film", "with", "no", "plot", "and", "very", "bad", "acting"]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def table(samples: int, text: str = "text", shift: int = 0) -> Any:
    texts = [" ".join(WORDS[: 1 + (i * 7 + shift) % len(WORDS)]) for i in range(samples)]
    return datasets.Dataset.from_dict({text: texts, "label": [i % 2 for i in range(samples)]})


def make(tokenizer: str, train: Any, **options: Any) -> TextClassification:
    settings: dict[str, Any] = {"num_classes": 2, "val_size": 10, "batch_size": 4}
    data = TextClassification(tokenizer, train, **settings | options)
    data.setup()
    return data


def read(batches: Any) -> list[tuple[list[int], int]]:
    """Each sentence's tokens without padding, with its label."""
    return [
        (ids[mask.bool()].tolist(), int(label))
        for x, y in batches
        for ids, mask, label in zip(x["input_ids"], x["attention_mask"], y, strict=True)
    ]


def test_every_form_of_source_reads_the_same(tokenizer: str, tmp_path: Path) -> None:
    train, test = table(40), table(15, shift=3)
    files = tmp_path / "files"
    files.mkdir()
    for name, split in (("train", train), ("test", test)):
        split.to_parquet(files / f"{name}-0.parquet")
        split.to_csv(tmp_path / f"{name}.csv", index=False)
        split.to_csv(tmp_path / f"{name}.tsv", index=False, sep="\t")
        split.save_to_disk(tmp_path / f"{name}-disk")
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / "both")
    sources = [
        (str(files), None),
        (str(files / "train-0.parquet"), str(files / "test-0.parquet")),
        ([str(tmp_path / "train.csv")], [str(tmp_path / "test.csv")]),
        (str(tmp_path / "train.tsv"), str(tmp_path / "test.tsv")),
        (str(tmp_path / "train-disk"), str(tmp_path / "test-disk")),
        (str(tmp_path / "both"), None),
    ]
    reference = transformers.AutoTokenizer.from_pretrained(tokenizer)
    expected = list(zip(reference(list(test["text"]))["input_ids"], test["label"], strict=True))
    for source, held_out in sources:
        data = make(tokenizer, source, test=held_out)
        assert read(data.test_dataloader()) == expected, source
        assert len(data.val_dataloader().dataset) == 10  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    table(203).to_parquet(tmp_path / "train.parquet")
    table(9).to_parquet(tmp_path / "test.parquet")
    return str(tmp_path)


def test_training_batches_hold_similar_lengths_and_differ_by_epoch(
    tokenizer: str, folder: str
) -> None:
    data = make(tokenizer, folder, cal_size=20)
    assert data.has_calibration

    def epoch(number: int) -> list[Tensor]:
        loader = data.train_dataloader()
        loader.sampler.set_epoch(number)
        return [x["input_ids"] for x, _ in loader]

    first = epoch(0)
    assert len(first) == (203 - 10 - 20) // 4
    assert all(map(torch.equal, first, epoch(0)))
    assert [len(x[0]) for x in first] != [len(x[0]) for x in epoch(1)]
    padded = torch.cat([(x == 0).flatten() for x in first]).float().mean()
    assert padded < 0.05


@pytest.mark.parametrize("name", [name for name in dir(data) if name.endswith("Source")])
def test_sources_prepare_batches_without_lightning(name: str) -> None:
    assert callable(getattr(getattr(data, name), "on_after_batch_transfer", None))


def test_batches_are_padded_and_cut(tokenizer: str, folder: str) -> None:
    data = make(tokenizer, folder, max_length=6)
    x, y = next(iter(data.test_dataloader()))
    assert x["input_ids"].dtype == x["attention_mask"].dtype == y.dtype == torch.int64
    assert x["input_ids"].shape == (9, 6)
    assert torch.equal(x["input_ids"] == 0, x["attention_mask"] == 0)
    assert not (x["input_ids"] == 1).any()  # no [UNK]
    texts = list(table(9)["text"])
    raw = data.encode(texts)
    assert torch.equal(raw["input_ids"], x["input_ids"])
    assert torch.equal(raw["attention_mask"], x["attention_mask"])


def test_tokens_are_kept_on_disk_until_tokenizer_or_length_changes(
    tokenizer: str, folder: str, tmp_path: Path
) -> None:
    def kept() -> int:
        return len(list((tmp_path / "cache/eenet-tokens").glob("*")))

    first = make(tokenizer, folder)
    files = kept()  # one for each of train and test
    again = make(tokenizer, folder)
    assert files == kept() == 2
    assert read(first.test_dataloader()) == read(again.test_dataloader())

    shorter = make(tokenizer, folder, max_length=4)
    assert kept() == 4
    assert max(len(ids) for ids, _ in read(shorter.test_dataloader())) == 4

    vocabulary = json.loads((Path(tokenizer) / "tokenizer.json").read_text())["model"]["vocab"]
    vocabulary["good"], vocabulary["bad"] = vocabulary["bad"], vocabulary["good"]
    other = tmp_path / "other"
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(other)
    changed = make(str(other), folder)
    assert kept() == 6
    cut = next((tmp_path / "cache/eenet-tokens").glob("*"))
    cut.write_bytes(cut.read_bytes()[:50])
    make(tokenizer, folder), make(str(other), folder), make(tokenizer, folder, max_length=4)
    assert cut.stat().st_size > 50
    assert read(changed.test_dataloader()) != read(first.test_dataloader())


def test_labels_may_be_names(tokenizer: str, tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    rows = [f"{WORDS[i % 10]},{('bad', 'good')[i % 2]}" for i in range(20)]
    path.write_text("\n".join(["text,label", *rows]))
    data = make(tokenizer, str(path), test=str(path), label_names=["bad", "good"])
    assert [label for _, label in read(data.test_dataloader())] == [0, 1] * 10
    assert make(tokenizer, str(path), test=str(path)).class_names == ["bad", "good"]
    with pytest.raises(ValueError, match=r"num_classes=3, but there are 2 classes: \[bad, good\]"):
        make(tokenizer, str(path), test=str(path), num_classes=3)
    with pytest.raises(ValueError, match="label_names="):
        make(tokenizer, str(path), label_names=["bad"])


def test_one_table_is_divided_and_its_classes_are_found(tokenizer: str, tmp_path: Path) -> None:
    path = str(tmp_path / "reviews.csv")
    rows = [f"{WORDS[i % 10]},{1 + i % 3}" for i in range(90)]  # stars from 1 to 3
    Path(path).write_text("\n".join(["text,label", *rows]))
    data = make(tokenizer, path, num_classes=None, val_size=0.2, test_size=0.1)
    parts = [read(data.loader(split)) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [63, 18, 9]
    assert sorted(label for part in parts for _, label in part) == [0] * 30 + [1] * 30 + [2] * 30
    assert (data.num_classes, data.class_names) == (3, ["1", "2", "3"])

    Path(path).write_text(
        "\n".join(["text,label", *(f"{WORDS[i % 10]},{i % 2}" for i in range(20))])
    )
    data = make(tokenizer, path, num_classes=None, test_size=5)
    assert (data.num_classes, data.class_names) == (2, ["0", "1"])
    with pytest.raises(
        ValueError, match=r"test=None.*`test_size`"
    ):  # else it would be its own test
        make(tokenizer, path)
    with pytest.raises(ValueError, match="not both"):
        make(tokenizer, path, test=path, test_size=5)


def test_what_is_wrong_is_named(tokenizer: str, folder: str, tmp_path: Path) -> None:
    def written(**columns: list[Any]) -> str:
        path = str(tmp_path / "bad.parquet")
        datasets.Dataset.from_dict(columns).to_parquet(path)
        return path

    with pytest.raises(ValueError, match=r"text_column='body'.*\['text', 'label'\]"):
        make(tokenizer, folder, text_column="body")
    with pytest.raises(ValueError, match="label_column='y'"):
        make(tokenizer, folder, label_column="y")
    with pytest.raises(ValueError, match="row 1 of 'text' holds no text but ' '"):
        make(tokenizer, written(text=["film", " "], label=[0, 1]))
    with pytest.raises(ValueError, match=r"num_classes=2.* 3 classes: \[-1, 0, 2\]"):
        make(tokenizer, written(text=["film"] * 3, label=[-1, 2, 0]), test_size=1)
    with pytest.raises(ValueError, match=r"tokenizer: 6 of the 6 tokens.*\[UNK\]"):
        make(tokenizer, written(text=["mai visto", "un brutto finale", "mah"], label=[0, 1, 0]))
    served = make(tokenizer, folder)
    assert served.encode(["mai visto"])["input_ids"].tolist() == [[2, 1, 1, 3]]
    assert served.encode([])["input_ids"].shape[0] == 0
    with pytest.raises(ValueError, match="a list of texts is wanted, not one text: 'a film'"):
        served.encode("a film")
    for wrong in (None, 3, b"film", "\udce9 film"):
        with pytest.raises(ValueError, match=r"text 1 of the batch is .* not text in UTF-8"):
            served.encode(["good", wrong])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="tokenizer='/no/such'"):
        make("/no/such", folder)
    with pytest.raises(FileNotFoundError, match=r"no/such\.csv"):
        make(tokenizer, "no/such.csv")
    with pytest.raises(FileNotFoundError, match="named dev"):
        make(tokenizer, folder, test_split="dev")
    with pytest.raises(ValueError, match="nothing to train on"):
        make(tokenizer, folder, val_size=203)


def test_a_network_trains_on_text_and_its_outputs_are_collected(
    tokenizer: str, folder: str, tmp_path: Path
) -> None:
    config = {"model_type": "bert", "num_hidden_layers": 2, "hidden_size": 16, "vocab_size": 15}
    net = TransformerEncoder(
        config=config | {"num_attention_heads": 2, "intermediate_size": 32}, exits=[1, 2]
    )
    data = TextClassification(
        tokenizer, folder, num_classes=2, val_size=20, batch_size=16, eval_batch_size=4
    )
    module = MultiExitModule(net, lambda p: torch.optim.AdamW(p, lr=1e-3))
    trainer = L.Trainer(
        default_root_dir=tmp_path,
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[SeedEpochs(), CollectOutputs()],
    )
    trainer.fit(module, datamodule=data)
    trainer.predict(module, datamodule=data)
    outputs = load_outputs(tmp_path / "outputs" / "test.safetensors")
    assert outputs.logits.shape == (2, 9, 2)
    assert outputs.labels is not None
    trainer.limit_predict_batches = 2
    with pytest.raises(ValueError, match="only 6 of 9 samples were seen"):
        trainer.predict(module, datamodule=data)
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["test.safetensors"]
    assert outputs.labels.tolist() == [label for _, label in read(data.test_dataloader())]
