"""Configs with mistakes, through the real command: one line names the key, and nothing is made."""

import contextlib
import copy
import io
import math
import tempfile
from pathlib import Path
from unittest import mock

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from eenet.cli import main
from eenet.cli.stage_run import StageRun

SEED = yaml.safe_load(Path("tests/conf/tiny.yaml").read_text())


def places(node, path=()):
    """Paths to all nodes below one."""
    found = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in found:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def at(config, path):
    for key in path:
        config = config[key]
    return config


PLACES = list(places(SEED))
LEAVES = [path for path in PLACES if not isinstance(at(SEED, path), dict | list)]
KEYS = [path for path in PLACES if isinstance(path[-1], str)]
VALUES = [None, "nonsense", -1, 0, 1.5, True, [], [1, "x"], {}, {"a": 1}, "", 10**12, "../x"]
DELETED = object()

SOME = settings(max_examples=settings.default.max_examples // 2)  # each takes up to a second


class Begun(Exception):
    """The config was accepted: a stage would begin."""


def refusal(change, *flags):
    """What the command says of a changed config; None where it is accepted."""
    config = copy.deepcopy(SEED)
    change(config)
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        path, run = Path(folder) / "config.yaml", Path(folder) / "run"
        path.write_text(yaml.safe_dump(config))
        try:
            with (
                mock.patch.object(StageRun, "execute", side_effect=Begun),
                contextlib.redirect_stderr(said),
                pytest.raises(SystemExit) as end,
            ):
                main(["pipeline", "--config", str(path), "--run_dir", str(run), *flags])
        except Begun:
            return None
        assert end.value.code == 2
        assert not run.exists()
    lines = [line for line in said.getvalue().splitlines() if "eenet: error: " in line]
    assert len(lines) == 1, said.getvalue()
    assert "Traceback" not in said.getvalue()
    return lines[0]


def put(path, value):
    def change(config):
        parent = at(config, path[:-1])
        if value is DELETED:
            del parent[path[-1]]
        else:
            parent[path[-1]] = value

    return change


def test_the_seed_itself_is_accepted():
    assert refusal(lambda config: None) is None


@SOME
@given(st.sampled_from(KEYS), st.data())
def test_a_typo_is_refused_by_its_name(path, data):
    name = path[-1]
    place = data.draw(st.integers(0, len(name)))
    wrong = data.draw(st.sampled_from([name[:place] + "x" + name[place:], name + name, "-" + name]))

    def change(config):
        parent = at(config, path[:-1])
        parent[wrong] = parent.pop(name)

    said = refusal(change)
    assert said is not None
    assert wrong in said or name in said or path[0] in said


@SOME
@given(st.sampled_from(LEAVES), st.sampled_from([{"a": 1}, {"class_path": "no.where"}, math.nan]))
def test_a_value_of_another_kind_is_refused(path, value):
    said = refusal(put(path, value))
    assert said is not None
    assert path[0] in said


@given(
    st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from([*VALUES, DELETED])), max_size=3)
)
def test_any_change_is_accepted_or_refused_with_one_line(changes):
    def change(config):
        for path, value in changes:
            try:
                put(path, value)(config)
            except (LookupError, TypeError, AttributeError):
                assume(False)  # an earlier change took its place away

    said = refusal(change)
    assert said is None or "stage1" in said or "stage2" in said, said


@pytest.mark.parametrize(
    ("flag", "names"),
    [
        ("--stage1.trainer.max_epoch=3", "max_epoch"),
        ("--stage1.trainer.max_epochs=many", "stage1.trainer.max_epochs"),
        ("--stage1.trainer.max_epochs=0", "stage1.trainer.max_epochs=0"),
        ("--stage1.trainer.max_steps=0", "stage1.trainer.max_steps=0"),
        ("--stage1.trainer.check_val_every_n_epoch=3", "stage1.trainer: limit_val_batches"),
        ("--stage1.trainer.limit_val_batches=0", "stage1.trainer: limit_val_batches"),
        ("--stage1.trainer.fast_dev_run=true", "stage1.trainer.fast_dev_run"),
        ("--stage1.trainer.limit_predict_batches=2", "stage1.trainer.limit_predict_batches"),
        ("--stage1.checkpoint.filename=other", "stage1.checkpoint.filename"),
        ("--stage1.checkpoint.save_top_k=0", "stage1.checkpoint.save_top_k"),
        ("--stage1.model.init_args.net.init_args.in_channels=3", "stage1.model.net"),
        ("--stage1.model.init_args.net.init_args.num_classes=5", "num_classes=5"),
        ("--stage1.model.init_args.net.init_args.widths=[0,8,8]", "stage1.model.net"),
        ("--stage1.model.init_args.distill_from=2", "distill_from=2"),
        ("--stage1.model.init_args.optimizer.init_args.lr=-1", "stage1.model.optimizer"),
        ("--stage1.data.init_args.val_size=5000", "stage1.data"),
        ("--stage2.data.init_args.costs=[1,2]", "stage2.data.costs"),
        ("--stage2.data.init_args.costs=[3,2,1]", "stage2.data.costs"),
        ("--stage2.data.init_args.costs=[0,0,0]", "stage2.data.costs"),
        ("--stage2.model.init_args.budgets=[0.5,.nan]", "budgets"),
        ("--stage2.model.init_args.budgets=[2]", "budgets"),
        (
            "--stage2.model.init_args.policies=[eenet.policies.EENet,eenet.policies.EENet]",
            "labels",
        ),
        ("--stage2.model.class_path=eenet.modules.multi_exit.MultiExitModule", "stage2"),
        ("--unknown=1", "unknown"),
    ],
)
def test_a_wrong_flag_is_named(flag, names):
    said = refusal(lambda config: None, flag)
    assert said is not None
    assert names in said
