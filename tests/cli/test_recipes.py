"""Recipes lie in the package: they are found by name anywhere, and hold only what is theirs."""

import pytest
import yaml

from eenet.cli import main
from eenet.cli.recipes import DEFAULTS, RECIPES, recipe_names


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def printed(capsys, *words):
    with pytest.raises(SystemExit):
        main([*words, "--print_config"])
    text = capsys.readouterr()
    assert text.out, text.err
    return yaml.safe_load(text.out)


def test_a_recipe_is_found_by_its_name_and_shown_whole(capsys):
    for flags in (["--config", "digits/resnet20"], ["-c=digits/resnet20.yaml"]):
        config = printed(capsys, "pipeline", *flags)
        assert config["stage1"]["data"]["class_path"] == "eenet.data.Digits"
        fit = config["stage2"]
        assert [p["class_path"].split(".")[-1] for p in fit["model"]["init_args"]["policies"]] == [
            *("EENet", "EENetPlus", "MaxProbability", "Entropy"),
        ]
        assert (fit["trainer"]["max_epochs"], fit["trainer"]["log_every_n_steps"]) == (100, 1)
        for stage in ("stage1", "stage2"):
            loggers = [x["class_path"] for x in config[stage]["trainer"]["logger"]]
            assert [x.split(".")[-1] for x in loggers] == ["CSVLogger", "WandbLogger"]
    assert "model" in printed(capsys, "fit", "--config", "outputs/scheduler")


def test_a_file_of_the_name_comes_first(capsys, tmp_path):
    (tmp_path / "digits").mkdir()
    stage1 = {"trainer": {"max_epochs": 7, "logger": False}}
    (tmp_path / "digits/resnet20").write_text(yaml.safe_dump({"stage1": stage1}))
    config = printed(capsys, "pipeline", "--config", "digits/resnet20")
    assert config["stage1"]["trainer"]["max_epochs"] == 7
    assert config["stage1"]["trainer"]["logger"] is False
    assert config["stage2"]["model"]["init_args"]["budgets"][0] == 0.2  # shared by all


def test_recipes_are_listed_and_copied(capsys, tmp_path):
    main(["recipes"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == recipe_names()
    assert max(map(len, lines)) <= 110
    main(["recipes", "digits/resnet20"])
    main(["recipes", "digits/resnet20", "mine/other.yaml"])
    for name in ("resnet20.yaml", "mine/other.yaml"):
        assert (tmp_path / name).read_text() == (RECIPES / "digits/resnet20.yaml").read_text()
    original = printed(capsys, "pipeline", "--config", "digits/resnet20")
    assert printed(capsys, "pipeline", "--config", "mine/other.yaml") == original
    for words, message in (
        (["digits/resnet20"], "resnet20.yaml exists already"),
        (["digits/resnet2"], "did you mean digits/resnet20?"),
        (["a", "b", "c"], "too many arguments"),
    ):
        with pytest.raises(SystemExit):
            main(["recipes", *words])
        assert message in capsys.readouterr().err


def test_no_recipe_repeats_what_all_share():
    shared = yaml.safe_load(DEFAULTS.read_text())
    for name in recipe_names():
        recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
        assert [x for x in leaves(recipe) if x in leaves(shared)] == [], name


def leaves(config, path=()):
    """Settings by their path; a list is one."""
    if not isinstance(config, dict):
        return [(path, config)]
    return [leaf for key, value in config.items() for leaf in leaves(value, (*path, key))]
