"""`eenet report`: one page with everything in it, whatever the data say."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
import yaml
from matplotlib.colors import to_rgb
from PIL import Image
from tests.report.browser import Browser, find_browser
from tests.report.conftest import ATTACK
from torch import nn

from eenet.cli import main
from eenet.data import Digits
from eenet.models import MultiExitNetwork
from eenet.outputs import ExitOutputs, load_outputs, save_outputs
from eenet.plotting.style import exit_colors
from eenet.report.examples import examples
from eenet.report.page import text_on
from eenet.run_folder import RunFolder


class Page(HTMLParser):
    """Elements with their attributes, and the text of each script."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.scripts, self._script = [], [], False
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._script = tag == "script"
        if self._script:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._script = False

    def handle_data(self, data):
        if self._script:
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def report(run_dir, tmp_path_factory):
    output = tmp_path_factory.mktemp("report")
    main(["report", str(run_dir), "--output", str(output)])
    return output


def test_the_page_needs_nothing_else(report):
    path = report / "report.html"
    assert path.stat().st_size < 5_000_000
    for tag, attributes in Page(path).elements:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in path.read_text()
    assert not re.search(r"url\((?!#)", path.read_text())


def test_names_and_sentences_are_text(report):
    page = Page(report / "report.html")
    data, script = page.scripts  # no third one, from the data
    assert "taken" not in script
    found = json.loads(data)
    assert found["classes"][0] == f"class 0 {ATTACK}"
    assert list(found["policies"]) == ["eenet+", "eenet", "margin"]  # the one opened with first
    assert all(ATTACK in sample["text"] for sample in found["examples"])
    assert ATTACK not in (report / "report.html").read_text()


def test_every_figure_is_a_file_and_has_words(report):
    names = {path.stem for path in (report / "figures").glob("*.svg")}
    for ending in ("png", "pdf"):
        assert names == {path.stem for path in (report / "figures").glob(f"*.{ending}")}
    assert "<text" in (report / "figures/curves.svg").read_text()
    assert b"/FontFile2" in (report / "figures/curves.pdf").read_bytes()  # TrueType, not outlines
    assert names >= {"curves", "shares", "scores", "classes", "reliability", "weights", "control"}
    ids = [a["id"] for _, a in Page(report / "report.html").elements if "id" in a]
    assert len(ids) == len(set(ids))
    drawn = [a for t, a in Page(report / "report.html").elements if t == "svg"]
    assert all(a["role"] == "img" and a["aria-label"] for a in drawn)


def test_the_exits_and_how_it_was_made_are_told(report, make_run, tmp_path):
    page = (report / "report.html").read_text()
    assert "seeds of stage 1, stage 2</th><td>0, 0" in page
    assert "400 validation (policies), 300 test" in page
    assert "None" not in page.partition("How this was made")[2].partition("<script")[0]
    run = make_run(tmp_path / "run")
    path = run / "stage1/config.yaml"
    net = {"class_path": "eenet.models.CifarResNet", "init_args": {"exits": ["early", "middle"]}}
    model = {"model": {"init_args": {"net": net}}}
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | model))
    outputs = load_outputs(run / "stage1/outputs/test.safetensors")
    costs = {"macs": [2e6, 4e6, 8e6], "params": [1000, 2000, 4000], "ms": [0.5, 1.0, 2.0]}
    costs |= {"device": "cpu", "batch_size": 1, "threads": 2}
    outputs.metadata["measured_costs"] = json.dumps(costs)
    save_outputs(outputs, run / "stage1/outputs/test.safetensors")
    main(["report", str(run)])
    rows = re.findall(r"<tr>.*?</tr>", (run / "report/report.html").read_text(), re.DOTALL)
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row) for row in rows]
    assert ["2", "middle", "4.00", "2,000", "1"] in [row[:5] for row in cells]
    assert ["3", "end", "8.00", "4,000", "2"] in [row[:5] for row in cells]


def test_mistakes_are_named(run_dir, make_run, tmp_path, capsys):
    def refused(*runs):
        with pytest.raises(SystemExit):
            main(["report", *map(str, runs), "--output", str(tmp_path / "none")])
        return capsys.readouterr().err

    assert "is not the folder of a finished run" in refused(tmp_path / "nowhere")
    other = make_run(tmp_path / "other", seed=1)
    (other / "stage1/identity.json").write_text('{"seed_everything": 1, "model": "larger"}')
    assert "stage1.model: 'stage1' there, 'larger' here" in refused(run_dir, other)
    (other / "stage2/checkpoints/best.ckpt").unlink()
    assert "stage2/checkpoints/best.ckpt is missing" in refused(other)
    assert not (tmp_path / "none").exists()


def test_the_report_goes_on_without_the_data(make_run, tmp_path):
    run = make_run(tmp_path / "run", train="gone.csv")
    main(["report", str(run)])
    page = (run / "report/report.html").read_text()
    assert "gone.csv" in page.partition("no longer available")[2][:200]


def test_images_are_those_of_the_test_split(tmp_path):
    (tmp_path / "stage1").mkdir()
    config = {"data": {"class_path": "eenet.data.Digits"}}
    (tmp_path / "stage1/config.yaml").write_text(yaml.safe_dump(config))
    (_, _), (images, labels) = Digits().load()
    outputs = ExitOutputs(torch.ones(1), torch.randn(1, len(labels), 10), labels=labels)
    found = examples(RunFolder(tmp_path), outputs, torch.tensor([7, 3]))
    for sample, image in zip(found["examples"], images[[7, 3]], strict=True):
        assert sample["image"].tobytes() == image.numpy().tobytes()
    outputs.labels[7] = (outputs.labels[7] + 1) % 10
    found = examples(RunFolder(tmp_path), outputs, torch.tensor([7, 3]))
    assert (found["examples"], "other labels" in found["missing"]) == ([], True)


class Pixels(nn.Module):
    """Says sky where a pixel is bright; the second of two exits also knows the road."""

    def __init__(self, knows):
        super().__init__()
        self.knows = knows

    def forward(self, x):
        logits = torch.zeros(len(x), 19, *x.shape[2:])
        logits[:, 10] = x.mean(1)
        logits[:, 0] = -x.mean(1) if self.knows else -9
        return logits


class Scenes(MultiExitNetwork):
    def __init__(self):
        super().__init__([nn.Identity(), nn.Identity()], [Pixels(False), Pixels(True)], 19)


def test_scenes_come_with_labels_and_with_what_each_exit_says(tmp_path, monkeypatch):
    ids = np.full((40, 80), 23, np.uint8)  # sky over road
    ids[20:] = 7
    image = np.where(ids[..., None] == 23, 250, 5).repeat(3, -1).astype(np.uint8)
    for kind, array, end in (
        ("leftImg8bit", image, "leftImg8bit"),
        ("gtFine", ids, "gtFine_labelIds"),
    ):
        for split in ("train", "val"):
            (tmp_path / kind / split / "bern").mkdir(parents=True)
            path = tmp_path / kind / split / f"bern/bern_000000_000019_{end}.png"
            Image.fromarray(array).save(path)
            Image.fromarray(array).save(str(path).replace("000000_", "000001_"))
    settings = {"root": str(tmp_path), "image_size": [20, 40], "val_size": 1}
    config = {"data": {"class_path": "eenet.data.Cityscapes", "init_args": settings}}
    (tmp_path / "stage1").mkdir()
    (tmp_path / "stage1/config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr("eenet.run_folder.RunFolder.network", lambda run: Scenes())
    outputs = ExitOutputs(torch.ones(2), pooled=torch.rand(2, 2, 22), quality=torch.rand(2, 2))
    found = examples(RunFolder(tmp_path), outputs, torch.tensor([1]))
    assert (found["missing"], found["classes"][10]) == (None, "sky")
    (sample,) = found["examples"]
    sky, road = (70, 130, 180), (128, 64, 128)
    top, bottom = (40, 5), (40, 35)
    mask, first, second = (x.convert("RGB") for x in (sample["mask"], *sample["answers"]))
    assert [mask.getpixel(place) for place in (top, bottom)] == [sky, road]
    assert [second.getpixel(place) for place in (top, bottom)] == [sky, road]
    assert first.getpixel(top) == sky
    assert first.getpixel(bottom) != road
    assert np.abs(np.asarray(sample["image"]).mean((1, 2))[[5, 15]] - [250, 5]).max() < 9


def test_figures_go_to_the_run_of_stage_2(make_run, tmp_path, capsys):
    run = make_run(tmp_path / "run")
    with pytest.raises(SystemExit):
        main(["report", str(run), "--wandb", "true"])
    assert "has no WandbLogger" in capsys.readouterr().err
    path = run / "stage2/config.yaml"
    init = {"project": "eenet", "offline": True, "version": "e1234567", "save_dir": "elsewhere"}
    logger = {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": init}
    config = yaml.safe_load(path.read_text()) | {"trainer": {"logger": [logger]}}
    path.write_text(yaml.safe_dump(config))
    main(["report", str(run), "--wandb", "true"])
    (folder,) = (run / "stage2/wandb").glob("offline-run-*-e1234567")
    logged = {p.name.split("_")[0] for p in folder.rglob("media/images/report/*.png")}
    assert logged == {p.stem for p in (run / "report/figures").glob("*.png")}


@pytest.fixture(scope="module")
def browser():
    path = find_browser()
    if path is None:
        pytest.skip("no Chromium: `make browser` brings one")
    browser = Browser(path)
    yield browser
    browser.close()


def test_the_slider_works_without_a_network(report, browser, tmp_path):
    path = report / "report.html"
    browser.open(path)
    data = json.loads(Page(path).scripts[0])
    words = 'document.getElementById("{}").textContent'
    shown = set()
    for label in ("eenet", "margin"):
        policy, curve = data["policies"][label], data["curves"][label]
        browser.run(
            f'at("policy").value = "{label}"; at("policy").dispatchEvent(new Event("change"))'
        )
        for stop in (0, 10, len(data["grid"]) - 1):
            browser.run(f'at("stop").value = {stop}; at("stop").dispatchEvent(new Event("input"))')
            fitted = [i for i, b in enumerate(policy["budget"]) if b <= data["grid"][stop] + 1e-6]
            i = fitted[-1] if fitted else 0
            quality = f"{100 * curve['quality'][i]:.1f}%"
            assert browser.run(words.format("quality")).startswith(quality)
            assert browser.run(words.format("cost")) == f"{curve['cost'][i]:.3f} cost used"
            shares = browser.run('at("shares").getAttribute("aria-label")').split(", ")
            expected = [f"exit {k + 1}: {100 * s:.1f}%" for k, s in enumerate(policy["shares"][i])]
            assert shares == expected
            rows = browser.run(
                '[...document.querySelectorAll("#classes td")].map(x => x.textContent)'
            )
            flat = [x for row in policy["classes"][i] for x in row]
            assert rows == [f"{100 * x:.0f}%" for x in flat]
            shown.add((quality, *shares))
    assert len(shown) >= 5
    browser.run('at("policy").value = "margin"; update()')
    csv, tex = (browser.run(f'copied("{kind}")') for kind in ("CSV", "LaTeX"))
    curve = data["curves"]["margin"]
    place = min(range(len(curve["budget"])), key=lambda i: abs(curve["budget"][i] - 0.5))
    assert f'"margin","0.50","{curve["cost"][place]:.3f}","' in csv
    assert tex.startswith("\\begin{tabular}{lrrrr")
    assert "margin & 0.50 & " in tex
    assert "%" not in tex.replace("\\%", "")
    browser.run('at("stop").focus()')
    before = browser.run(words.format("budget"))
    browser.send("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft", code="ArrowLeft",
                 windowsVirtualKeyCode=37)  # fmt: skip
    assert browser.run(words.format("budget")) != before
    assert browser.run("document.title").endswith("adaptive inference report")  # not "taken"
    assert browser.problems == []
    assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"}


@pytest.mark.parametrize(
    "how", [{}, {"scheme": "dark"}, {"width": 390}, {"media": "print", "width": 760}], ids=str
)
def test_the_page_fits_its_reader(report, browser, tmp_path, how):
    browser.open(report / "report.html")
    browser.look(tmp_path / "page.png", **how)
    assert browser.run("document.documentElement.scrollWidth") <= how.get("width", 1100)
    colors = browser.run("[getComputedStyle(document.body).color, "
                          "getComputedStyle(document.body).backgroundColor]")  # fmt: skip
    ink, paper = (sum(map(int, re.findall(r"\d+", color)[:3])) for color in colors)
    assert (ink > paper) == (how.get("scheme") == "dark")
    with Image.open(tmp_path / "page.png") as image:
        assert image.height > 4000
    assert browser.problems == []


@pytest.mark.parametrize("exits", range(2, 8))
def test_text_on_the_colors_of_exits_can_be_read(exits):
    def luminance(color):
        return float(np.dot(linear(np.array(to_rgb(color))), [0.2126, 0.7152, 0.0722]))

    def linear(x):
        return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)

    for color in exit_colors(exits):
        low, high = sorted((luminance(color), luminance(text_on(color))))
        assert (high + 0.05) / (low + 0.05) >= 4.5
