"""The benchmark's smallest case, in this process; no times are judged."""

import json
import math

import pytest

from benchmarks import plot_solver, solver


@pytest.fixture(scope="module")
def rows():
    return solver.measure(solver.smallest_case(), solver.Settings(repeats=1), solver.run_here)


def test_a_row_a_peer(rows):
    assert [row.peer for row in rows] == ["SCS", "CLARABEL"]
    for row in rows:
        assert (row.classes, row.groups) == (10, 2)
        assert row.ratio == pytest.approx(row.peer_seconds / row.seconds)
        assert row.svd_units == pytest.approx(row.seconds / row.svd_seconds)
        assert row.goal == "≥ 20x"
        assert row.met is not None


def test_gaps_are_certified_and_comparable(rows):
    for row in rows:
        assert 0 <= row.gap <= row.tol
        assert 0 <= row.peer_gap <= solver.COMPARABLE_GAP
        assert row.gap <= max(row.peer_gap, solver.ROUNDING)


def test_results_are_written_and_drawn(rows, tmp_path):
    about = solver.environment(solver.Settings(), quick=True)
    solver.write_results(tmp_path, about, rows)
    stored = json.loads((tmp_path / "solver.json").read_text(encoding="utf-8"))
    assert [row["peer"] for row in stored["rows"]] == ["SCS", "CLARABEL"]
    lines = (tmp_path / "solver.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("case,series,classes,groups,seconds,gap")
    assert len(lines) == 3
    plot_solver.main([str(tmp_path / "solver.json")])
    assert (tmp_path / "solver.png").read_bytes().startswith(b"\x89PNG")


def test_counts_are_distinct_and_geometric_where_there_is_room():
    for k in (10, 50, 200, 1000):
        counts = solver.distinct_counts(k)
        assert (len(set(counts)), counts[0], counts[-1]) == (k, 5, 1280)
        assert counts == sorted(counts)
    assert solver.distinct_counts(9) == [5 * 2**i for i in range(9)]
    with pytest.raises(ValueError, match="2000 distinct counts do not fit"):
        solver.distinct_counts(2000)
    problem = solver.half_threshold(solver.grouped_counts(21_841, 100))
    assert (problem.num_classes, len(problem.groups)) == (21_841, 100)
    assert problem.logit_decay == pytest.approx(math.sqrt(5) / (2 * problem.num_samples))


def _judge(**changes):
    row = solver.Row("case", "series", 10, 10, seconds=1.0, gap=1e-9, tol=1e-8, peer="SCS")
    for name, value in changes.items():
        setattr(row, name, value)
    return solver.judged(row, solver.Goal(min_ratio=20)).met


def test_a_goal_is_met_only_at_a_gap_no_worse_than_the_peers():
    assert _judge(peer_seconds=30.0, peer_gap=1e-8, ratio=30.0) is True
    assert _judge(peer_seconds=30.0, peer_gap=1e-10, ratio=30.0) is False
    assert _judge(peer_seconds=10.0, peer_gap=1e-8, ratio=10.0) is False
    assert _judge(gap=1e-7, peer_seconds=30.0, peer_gap=1e-6, ratio=30.0) is False
    # The peer was stopped: the ratio is a lower bound, which may or may not decide.
    assert _judge(ratio=120.0, ratio_is_bound=True) is True
    assert _judge(ratio=12.0, ratio_is_bound=True) is None
    assert _judge() is None  # the peer failed
    assert _judge(seconds=None, gap=None) is False
