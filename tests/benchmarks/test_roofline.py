# SPDX-License-Identifier: MIT
"""The roofline: its arithmetic, and a short run of the command. How fast anything is is not tested."""

import numpy as np
import pytest

import functorch_lite as fl
from benchmarks import roofline
from benchmarks.roofline import Point, Roof

ROOF = Roof(2, 100e9, ((1 << 10, 40e9), (1 << 20, 20e9), (1 << 30, 10e9)))


@pytest.mark.parametrize(
    ("size", "bandwidth"), [(1, 40e9), (1 << 10, 40e9), (1 << 11, 20e9), (1 << 30, 10e9), (1 << 40, 10e9)]
)
def test_a_program_is_held_to_the_bandwidth_of_arrays_as_large_as_its_own(size, bandwidth):
    assert ROOF.bandwidth(size) == bandwidth
    assert ROOF.at(1.0, size) == bandwidth


def test_a_disturbed_measurement_does_not_lower_the_roof_of_smaller_programs():
    assert Roof(1, 1e9, ((1 << 10, 10e9), (1 << 20, 20e9))).bandwidth(1) == 20e9


def test_the_roof_is_the_lower_of_the_peak_and_what_memory_gives():
    assert ROOF.at(2.0, 1 << 20) == 40e9
    assert ROOF.at(1000.0, 1 << 20) == 100e9


def test_a_share_is_that_of_the_roof_above_the_point():
    point = Point("sum", operations=1_000_000, moved=4_000_000, size=1 << 20, seconds=400e-6)
    assert point.intensity == 0.25 and point.rate == pytest.approx(2.5e9)
    assert point.share(ROOF) == pytest.approx(0.5)
    assert roofline.line(point, ROOF).split() == ["sum", "400.0", "us", "1", "MB", "0.25", "2.5", "10.0", "5.0", "50%"]


def test_operations_and_bytes_of_a_product_are_those_of_its_loops():
    point = roofline.measured_point("matmul-64", 1)
    assert 2 * 64**3 <= point.operations < 2.1 * 64**3
    assert point.moved == 3 * 4 * 64**2 == point.size and point.seconds > 0


def test_the_command_prints_a_table_for_each_number_of_threads_and_draws(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    monkeypatch.setattr(roofline, "TRIADS", (1 << 10,))
    monkeypatch.setattr(roofline, "PRODUCTS", (64,))
    monkeypatch.setattr(roofline, "SWEPT", 1 << 12)
    monkeypatch.setattr(roofline, "TURN", 0.0)
    picture, before = tmp_path / "new" / "roofline.png", fl.config.num_threads
    fl.config.update(num_threads=2)
    try:
        assert roofline.main(["--only", "matmul-16,sum-0", "--rounds", "1", "--picture", str(picture)]) == 0
        assert fl.config.num_threads == 2
    finally:
        fl.config.update(num_threads=before)
    out = capsys.readouterr().out
    assert out.count("\nmatmul-16") == out.count("\nsum-0") == 2
    assert "\n1 thread: " in out and "\n2 threads: " in out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_an_unknown_workload_is_named(capsys):
    with pytest.raises(SystemExit):
        roofline.main(["--only", "matmul-65"])
    assert "no workload matmul-65; there are " in capsys.readouterr().err


def test_all_workloads_of_the_roofline_exist():
    assert set(roofline.WORKLOADS) <= set(roofline.ALL)
    assert np.all(np.diff(roofline.TRIADS) > 0)
