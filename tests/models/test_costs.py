import pytest
import torch

from eenet.models import CifarResNet, energy
from eenet.models.costs import LatencyProfile, count_macs, measure_costs, profile_latency


def test_macs_and_parameters_of_a_hand_counted_network():
    net = CifarResNet(depth=8, exits=[1, 2, 3], in_channels=1, widths=(4, 8, 16), num_classes=10)
    costs = measure_costs(net, torch.zeros(2, 1, 8, 8), warmup=0, repeats=3)
    stem, block1 = 8 * 8 * 9 * 4, 2 * 8 * 8 * 9 * 4 * 4
    block2 = 4 * 4 * (9 * 4 * 8 + 9 * 8 * 8 + 4 * 8)  # two convolutions and the projection
    block3 = 2 * 2 * (9 * 8 * 16 + 9 * 16 * 16 + 8 * 16)
    first = stem + block1 + 4 * 10
    assert costs.macs == [first, first + block2 + 8 * 10, first + block2 + block3 + 240]
    assert costs.params[-1] == sum(p.numel() for p in net.parameters())
    assert costs.params[0] == 9 * 4 + 8 + 2 * (9 * 4 * 4 + 8) + 4 * 10 + 10
    assert costs.ms == sorted(costs.ms)
    assert all(a <= b <= c for a, b, c in zip(costs.ms, costs.ms_p95, costs.ms_p99, strict=True))
    assert costs.batch_size == 2


def test_measuring_leaves_the_network_as_it_was():
    net = CifarResNet(depth=8, exits=[3], in_channels=1).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    measure_costs(net, torch.randn(1, 1, 8, 8), warmup=0, repeats=1)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_macs_do_not_depend_on_the_batch():
    net = CifarResNet(depth=20, exits=[1, 3, 6, 9])
    assert count_macs(net, torch.zeros(1, 3, 32, 32)) == count_macs(net, torch.zeros(7, 3, 32, 32))
    # He et al. 2016 report 41 M for ResNet-20; heads and projections add under 2 %.
    assert count_macs(net, torch.zeros(1, 3, 32, 32))[-1] == pytest.approx(41e6, rel=0.02)


def test_a_latency_profile_at_several_batch_sizes():
    net = CifarResNet(depth=8, exits=[1, 2, 3], in_channels=1, widths=(4, 8, 16)).train()
    profile = profile_latency(net, torch.randn(2, 1, 8, 8), [4, 1], warmup=0, repeats=3)
    assert net.training
    for size in (1, 4):
        assert profile.times[size].shape == (3, 3)
        median, p90, p99 = (profile.exit_ms(size, q) for q in (0.5, 0.9, 0.99))
        assert 0 < median[0] <= median[1] <= median[2]
        assert median[2] <= p90[2] <= p99[2]


def test_the_time_of_a_step_by_hand():
    times = {1: [[1.0, 3.0], [2.0, 3.0]], 8: [[10.0, 15.0], [10.0, 15.0]]}
    profile = LatencyProfile({n: torch.tensor(t).double() for n, t in times.items()})
    assert profile.step_ms(0, 1, q=0.5) == 1.5
    assert profile.step_ms(1, 1, q=1.0) == 2.0
    assert profile.step_ms(1, 2) == pytest.approx(5.0)  # as long as eight samples take
    assert profile.step_ms(1, 16) == pytest.approx(10.0)


def test_energy_by_a_meter_that_counts_stages(monkeypatch):
    net = CifarResNet(depth=8, exits=[1, 2, 3], in_channels=1, widths=(4, 8, 16)).train()
    spent = [100.0]  # whatever was counted before
    for k, stage in enumerate(net.stages, 1):
        stage.register_forward_hook(lambda *_, k=k: spent.append(spent[-1] + k))
    monkeypatch.setattr(energy, "counted", lambda device: spent[-1])
    found = energy.measure_energy(net, torch.zeros(2, 1, 8, 8), seconds=0.01)
    assert found == pytest.approx([0.5, 1.5, 3.0])  # two samples
    assert net.training
    readings = iter([100.0, 101.0, 1.0])
    monkeypatch.setattr(energy, "counted", lambda device: next(readings))
    assert energy.measure_energy(net, torch.zeros(2, 1, 8, 8), seconds=0.01) is None  # began anew


def test_energy_of_processors_is_that_of_their_packages(monkeypatch, tmp_path):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    assert energy.counted(torch.device("cpu")) is None
    for name, microjoules in {"intel-rapl:0": 7_000_000, "intel-rapl:0:0": 5, "dtpm": 1}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{microjoules}\n")
    assert energy.counted(torch.device("cpu")) == 7.0
