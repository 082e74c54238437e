"""A policy looks the same wherever it is drawn, and like no other."""

from eenet.plotting.style import LABELS, look, plot_curves


def test_a_policy_keeps_its_look_whatever_stands_beside_it():
    looks = [tuple(look(label)[x] for x in ("color", "marker")) for label in LABELS]
    assert len(set(looks)) == len(LABELS)
    assert look("mine") == look("mine")
    row = {"budget": 0.5, "cost": 0.5, "quality": 0.9, "quality_se": 0.01}
    for labels in (["eenet", "entropy"], ["entropy", "margin", "eenet"]):
        figure = plot_curves(
            [{"policy": x, **row} for x in labels], [0.2, 1], [0.8, 0.9], "accuracy"
        )
        lines = {line.get_label(): line for line in figure.axes[0].lines}
        for label in labels:
            assert lines[label].get_color() == look(label)["color"]
            assert lines[label].get_marker() == look(label)["marker"]
