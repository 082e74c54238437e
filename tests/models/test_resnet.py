import pytest

from eenet.models import CifarResNet


@pytest.mark.parametrize(
    ("depth", "block", "millions", "within"),
    [
        (20, "basic", 0.27, 0.005),  # He et al. 2016, table 6
        (32, "basic", 0.46, 0.0092),
        (44, "basic", 0.66, 0.0132),
        (56, "basic", 0.85, 0.01),
        (83, "bottleneck", 0.87, 0.0174),  # the layout of EENet's authors
    ],
)
def test_parameter_counts_are_the_published_ones(depth, block, millions, within):
    blocks = (depth - 2) // (2 if block == "basic" else 3)
    net = CifarResNet(depth=depth, block=block, exits=[blocks])
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=within)


@pytest.mark.parametrize("exits", [[], [3, 2, 9], [0, 9], [3, 6], [3, 10], [9, 9]])
def test_exits_out_of_place_are_refused(exits):
    with pytest.raises(ValueError, match=r"exits=.*from 1 to 9"):
        CifarResNet(depth=20, exits=exits)


def test_a_depth_that_fits_no_resnet_is_refused():
    with pytest.raises(ValueError, match=r"depth=21 .* 6n \+ 2"):
        CifarResNet(depth=21)
