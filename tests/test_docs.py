"""The documentation does what it says: its code runs, its commands parse, its site builds."""

import html
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from jsonargparse import capture_parser
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.io import write_png

from eenet.cli import main
from eenet.cli.help import HELP
from eenet.cli.recipes import find_config, with_recipes
from eenet.cli.sweep_file import read_sweep, trials
from eenet.data import Digits

ROOT = Path(__file__).parents[1]
PAGES = [Path("README.md"), *sorted(Path("docs").glob("*.md"))]
# What earlier commands of a page would have left, and where the same setting lies before.
LEFT = {
    "runs/digits/pipeline.yaml": "digits/resnet20",
    "runs/outputs/config.yaml": "outputs/scheduler",
}
SHELL = {"source", "echo", "pip", "wandb"}


def blocks(page, *languages):
    pattern = rf"^```(?:{'|'.join(languages)})\n(.*?)^```"
    return re.findall(pattern, (ROOT / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)


def commands(page):
    """The words of each command in the page's shell blocks; a pipe divides two."""
    for block in blocks(page, "sh", "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while "|" in words:
                yield words[: words.index("|")]
                words = words[words.index("|") + 1 :]
            if words:
                yield words


def modules(page, folder):
    """Writes the Python blocks that name a file."""
    for block in blocks(page, "python"):
        if match := re.match(r"# (\w+\.py)\n", block):
            (folder / match[1]).write_text(block)


@pytest.mark.parametrize("page", [p for p in PAGES if list(commands(p))], ids=str)
def test_every_command_is_one(page, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(tmp_path)
    modules(page, tmp_path)
    for words in commands(page):
        program, *rest = words
        if program == "make":
            assert re.search(f"^{rest[0]}:", Path("Makefile").read_text(), re.MULTILINE), words
        elif program in ("python", "bash", "sbatch"):
            assert Path(next(word for word in rest if not word.startswith("-"))).is_file(), words
        elif program == "eenet":
            rest = with_recipes([LEFT.get(word, word) for word in rest])
            assert f"eenet {rest[0]} " in HELP, words
            if rest[0] == "recipes":
                assert all(Path(find_config(name)).is_file() for name in rest[1:2])
                continue
            parser = capture_parser(main, rest)
            lightnings = rest[0] in ("fit", "validate", "test")  # one parser for all of these
            given = parser.parse_args(rest if lightnings else rest[1:])
            if rest[0] == "sweep":
                assert trials(read_sweep(given.file, given.method), given.count)
        else:
            assert program in SHELL, words


def run(*words, cwd, **options):
    """Runs a command as it stands, on this Python."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    words = [sys.executable, "-m", *words] if words[0] == "eenet" else list(words)
    result = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder where a stranger works, with what "Your own network" leaves."""
    place = tmp_path_factory.mktemp("stranger")
    page = Path("docs/own-network.md")
    modules(page, place)
    (command,) = commands(page)
    tiny = ["--stage1.trainer.max_epochs", "2", "--stage1.data.init_args.cal_size", "200"]
    tiny += ["--stage2.model.init_args.policies", "[eenet.policies.EENetPlus]"]
    run(*command, *tiny, cwd=place)
    for name in ("digits", "guarded", "cifar10"):  # as other pages call a finished run
        (place / "runs" / name).symlink_to(place / "runs" / "mynet")
    return place


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python", "py")], ids=str)
def test_the_code_runs(page, place, tmp_path, monkeypatch):
    (tmp_path / "runs").symlink_to(place / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(place)
    data = Digits()
    data.setup()
    x, _ = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    known = {"x": x, "batches": [x, x[:7]]}
    for name in ("cat.jpg", "dog.jpg"):
        Image.new("L", (20, 30)).save(name)
    for block in blocks(page, "python", "py"):
        if "export" in block:
            pytest.importorskip("onnxruntime")
        exec(block, known)


def tiny_encoder(folder):
    """An encoder and tokenizer such as a hub would give, small and without a download."""
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "joy", "bore", "long", "film"]
    transformers.BertTokenizer(vocab={w: i for i, w in enumerate(words)}).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=len(words), num_hidden_layers=6, **sizes)
    transformers.BertModel(config).save_pretrained(folder)


def test_a_stranger_goes_from_a_table_to_answers(place):
    tiny_encoder(place / "encoder")
    rows = [f"a {w} film{' long' * (i % 3)},{s}" for i in range(100) for w, s in PAIRS]
    (place / "reviews.csv").write_text("\n".join(["review,sentiment", *rows]))
    pipeline, predict = pages_commands("runs/reviews")
    tiny = ["--stage1.model.init_args.net.init_args.name_or_path", "encoder"]
    tiny += ["--stage1.data.init_args.tokenizer", "encoder", "--stage1.trainer.max_epochs", "8"]
    tiny += ["--stage1.model.init_args.optimizer.init_args.lr", "0.01"]
    assert "Test accuracy" in run(*pipeline, *tiny, "--stage2.trainer.max_epochs", "5", cwd=place)
    run(*predict, cwd=place, input="a joy film\na bore film\n")
    header, *answers = (place / "predictions.csv").read_text().splitlines()
    assert header.startswith('"input","class"')
    assert [line.split(",")[1] for line in answers] == ['"good"', '"bad"']


PAIRS = (("joy", "good"), ("bore", "bad"))


def test_a_stranger_goes_from_images_to_answers(place):
    digits = load_digits()
    for label, name in ((0, "cat"), (1, "dog")):  # easily told apart
        (place / "photos" / name).mkdir(parents=True)
        for number, image in enumerate(digits.images[digits.target == label][:60]):
            pixels = torch.from_numpy(image * 15).byte().expand(3, 8, 8)
            write_png(pixels, str(place / "photos" / name / f"{number}.png"))
    pipeline, _, predict = pages_commands("runs/photos")
    tiny = ["--stage1.data.init_args.image_size", "32", "--stage1.data.init_args.resize", "32"]
    tiny += ["--stage1.model.init_args.net.init_args.weights", "null"]
    tiny += ["--stage1.trainer.max_epochs", "2", "--stage1.data.init_args.num_workers", "0"]
    assert "Test accuracy" in run(*pipeline, *tiny, "--stage2.trainer.max_epochs", "5", cwd=place)
    run(*predict, cwd=place)
    answers = (place / "answers.csv").read_text().splitlines()
    assert len(answers) == 61
    assert {line.split(",")[1] for line in answers[1:]} <= {'"cat"', '"dog"'}


def pages_commands(run_dir):
    """The commands of "Your own data" that work in this folder."""
    page = Path("docs/own-data.md")
    return [w for w in commands(page) if w[0] == "eenet" and any(run_dir in word for word in w)]


@pytest.mark.slow
def test_the_tutorials_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tutorials = runpy.run_path(str(ROOT / "docs" / "tutorials" / "execute.py"))
    for path in tutorials["TUTORIALS"]:
        stored = json.loads(path.read_text("utf-8"))["cells"]
        executed = tutorials["execute"](path)["cells"]
        counts = [[len(cell.get("outputs", [])) for cell in cells] for cells in (stored, executed)]
        assert counts[0] == counts[1], f"python docs/tutorials/execute.py FOLDER stores {path.name}"
        assert path.stat().st_size < 150_000


def test_the_site_builds_without_warnings_and_asks_nobody(tmp_path):
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    pages = {path.name: path.read_text("utf-8") for path in tmp_path.rglob("*.html")}
    assert set(pages) >= {page.with_suffix(".html").name for page in PAGES[1:]}
    loaded = r"<(?:script|img|iframe|source|link)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//"
    assert [name for name, text in pages.items() if re.search(loaded, text)] == []
    broken = r"<p>\||\|---"  # a table whose columns do not match stays text
    assert [name for name, text in pages.items() if re.search(broken, text)] == []
    assert "<math" in pages["method.html"]
    assert [name for name, text in pages.items() if 'class="arithmatex"' in text] == []
    assert (tmp_path / "search" / "search_index.js").is_file()  # for pages from disk
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", style.read_text("utf-8"))
    check_the_command_reference(pages["commands.html"])
    for package in ("models", "outputs", "policies", "metrics", "data", "modules", "inference"):
        names = import_module(f"eenet.{package}").__all__
        text = (tmp_path / "api" / f"{package}.html").read_text("utf-8")
        assert [x for x in names if not re.search(rf'id="eenet[\w.]*\.{x}"', text)] == []


FLAGS = {
    "pipeline --config": ("--run_dir", "--overwrite", "--launcher"),
    "fit --config": ("Train a network (stage 1)", "--ckpt_path"),
    "validate --config": ("validation metrics", "--ckpt_path"),
    "test --config": ("test metrics", "--ckpt_path"),
    "predict --config": ("exit outputs", "--ckpt_path"),
    "predict RUN_DIR": ("--input", "--output", "--budget", "--policy", "--control"),
    "compare RUN_DIR...": ("--val", "--budgets", "--seeds", "--policies", "--reference", "--jobs"),
    "report RUN_DIR...": ("--output", "--wandb"),
    "recipes [NAME]": ("copies that recipe",),
    "exits MODEL": ("--input_size", "--options", "--budgets"),
    "sweep FILE": ("--jobs", "--count", "--method"),
    "push RUN_DIR": ("--private", "--license"),
}


def check_the_command_reference(page):
    """Every command has a section with its own flags and without those of other classes."""
    page = html.unescape(page)
    sections = re.split(r"<h2[^>]*>eenet ", page)[1:]
    titles = re.findall(r"^  eenet (\w+ +\S+)", HELP, re.MULTILINE)
    assert len(sections) == len(titles)
    for title, section in zip(titles, sections, strict=True):
        command = " ".join(title.split())
        assert section.startswith(command)
        text = re.sub(r"<[^>]+>", "", section)
        assert [flag for flag in FLAGS[command] if flag not in text] == []
        assert "--trainer.max_epochs" not in text
        assert "Runs the full optimization routine." not in text
