"""ClassMoments against the two-pass reference: any split, order, merge, type and offset."""

import copy
import gc
import io
import pickle
import warnings
import weakref
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.metrics.samples import Sizes, gather, quick, streams
from tests.reference import two_pass
from tightframe.metrics import ClassMoments, CollapseReport, class_moments
from tightframe.metrics import panels as panels_module

pytestmark = pytest.mark.filterwarnings("error")


def assert_same(moments, x, y, k, rtol=1e-11):
    scale = np.abs(x - x.mean(axis=0)).max() or 1.0
    close = {"rtol": rtol, "atol": rtol * scale}
    close_squares = {"rtol": rtol, "atol": rtol * scale**2}
    assert moments.counts.tolist() == [int(np.sum(y == c)) for c in range(k)]
    np.testing.assert_allclose(moments.means, two_pass.class_means(x, y, k), **close)
    np.testing.assert_allclose(moments.traces, two_pass.traces(x, y, k), **close_squares)
    np.testing.assert_allclose(moments.within(), two_pass.within(x, y, k), **close_squares)
    for weighting in ("class", "sample"):
        mean = two_pass.global_mean(x, y, k, weighting)
        np.testing.assert_allclose(moments.global_mean(weighting), mean, **close)
        np.testing.assert_allclose(
            moments.centered_means(weighting), two_pass.class_means(x, y, k) - mean, **close
        )
        np.testing.assert_allclose(
            moments.between(weighting), two_pass.between(x, y, k, weighting), **close_squares
        )
    np.testing.assert_allclose(moments.origin + moments.offsets, moments.means, **close)


class TestStreaming:
    @quick
    @given(streams(), st.data())
    def test_any_split_of_any_order_is_the_two_pass_answer(self, stream, data):
        x, y, k = stream
        cuts = data.draw(st.lists(st.integers(0, len(y)), max_size=6))  # repeated: empty batches
        assert_same(gather(x, y, k, cuts), x, y, k)

    @quick
    @given(streams(), st.data())
    def test_any_merge_of_any_shards_is_the_two_pass_answer(self, stream, data):
        x, y, k = stream
        shards = data.draw(st.integers(1, 5))
        owner = np.array(
            data.draw(st.lists(st.integers(0, shards - 1), min_size=len(y), max_size=len(y)))
        )
        parts = [gather(x[owner == s], y[owner == s], k) for s in range(shards)]
        parts = data.draw(st.permutations(parts))
        merged = ClassMoments(k)
        for part in parts:
            before = part.state_dict()
            assert merged.merge(part) is merged
            assert_states_equal(part.state_dict(), before)
        assert_same(merged, x, y, k)
        # A merge is a state like any other: more samples can follow.
        assert_same(merged.update(x, y), np.r_[x, x], np.r_[y, y], k)

    @quick
    @given(streams(), st.integers(1, 40))
    def test_long_batches_are_taken_in_pieces(self, stream, block):
        x, y, k = stream
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(class_moments, "BLOCK_ENTRIES", block)
            assert_same(gather(x, y, k), x, y, k)

    @quick
    @given(streams(), st.integers(1, 12), st.data())
    def test_any_buffer_is_the_two_pass_answer(self, stream, buffer, data):
        x, y, k = stream
        cuts = data.draw(st.lists(st.integers(0, len(y)), max_size=6))
        moments = gather(x, y, k, cuts, buffer=buffer)
        assert_same(moments, x, y, k)
        # Rows gathered after a reader came are not forgotten either.
        assert_same(moments.update(x, y), np.r_[x, x], np.r_[y, y], k)

    @pytest.mark.parametrize(
        "read",
        [
            lambda m: m.means,
            lambda m: m.offsets,
            lambda m: m.mean_errors,
            lambda m: m.global_mean(),
            lambda m: m.centered_means(),
            lambda m: m.traces,
            lambda m: m.within(),
            lambda m: m.between(),
            lambda m: m.present().within(),
            lambda m: ClassMoments(3).merge(m).within(),
            lambda m: m.merge(m).within(),
            lambda m: m.merge(ClassMoments(3)).within(),
            lambda m: m.merge(ClassMoments(3).update(np.ones((2, 4)), [0, 1])).within(),
            lambda m: ClassMoments(3).load_state_dict(m.state_dict()).within(),
            lambda m: copy.deepcopy(m).within(),
            lambda m: pickle.loads(pickle.dumps(m)).within(),
            lambda m: m.tensors()[2],
        ],
    )
    def test_every_reader_sees_the_waiting_rows(self, read):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(9, 4)), np.arange(9) % 3
        waiting = gather(x, y, 3, cuts=range(9), buffer=100)
        added = gather(x, y, 3, buffer=1)  # every row is added at once
        np.testing.assert_allclose(read(waiting), read(added), rtol=1e-12, atol=1e-14)

    def test_counts_include_the_waiting_rows_and_loading_forgets_them(self):
        moments = ClassMoments(2, buffer=100).update([[1.0], [2.0]], [0, 1])
        assert (moments.num_samples, moments.missing) == (2, [])
        moments.load_state_dict(ClassMoments(2).update([[5.0]], [1]).state_dict())
        moments.update([[7.0]], [0])
        assert moments.means.tolist() == [[7.0], [5.0]]

    @quick
    @given(streams(), st.integers(1, 4))
    def test_products_by_panels(self, stream, panel):
        x, y, k = stream
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(panels_module, "_PANEL", panel)
            moments = gather(x, y, k, cuts=[len(y) // 2])
            assert_same(moments, x, y, k)
            assert_same(ClassMoments(k).merge(moments).merge(moments), np.r_[x, x], np.r_[y, y], k)
            assert torch.equal(moments.within(), moments.within().T)
            products = moments.state_dict()["products"]
            assert torch.equal(products, products.T)

    def test_widths_of_several_panels(self):
        rng = np.random.default_rng(0)
        for dim in (127, 128, 129, 300):
            x, y = rng.normal(size=(50, dim)), np.arange(50) % 3
            within = gather(x, y, 3, cuts=[20]).within()
            np.testing.assert_allclose(within, two_pass.within(x, y, 3), rtol=1e-11, atol=1e-13)

    @quick
    @given(streams(), st.floats(-1e6, 1e6), st.permutations(range(6)))
    def test_translation_and_relabelling(self, stream, shift, order):
        x, y, k = stream
        x = x.astype(np.float32).astype(float)
        moments, moved = gather(x, y, k), gather(x + shift, y, k)
        atol = 1e-15 * (np.abs(x).max() + abs(shift)) * np.abs(x).max() * 100
        np.testing.assert_allclose(moved.within(), moments.within(), rtol=1e-9, atol=atol)
        names = np.array([c for c in order if c < k])
        renamed = gather(x, names[y], k)
        np.testing.assert_allclose(renamed.means[names], moments.means, rtol=1e-12)
        np.testing.assert_allclose(renamed.traces[names], moments.traces, rtol=1e-12)

    def test_merge_with_itself_counts_everything_twice(self):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(9, 3)), np.arange(9) % 2
        moments = gather(x, y, 2)
        assert_same(moments.merge(moments), np.r_[x, x], np.r_[y, y], 2)

    def test_without_scatter_only_within_is_lost(self):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(9, 3)), np.arange(9) % 2
        moments = gather(x, y, 2, cuts=[4], scatter=False)
        np.testing.assert_allclose(moments.traces, two_pass.traces(x, y, 2), rtol=1e-12)
        np.testing.assert_allclose(moments.between(), two_pass.between(x, y, 2), rtol=1e-12)
        with pytest.raises(ValueError, match="scatter"):
            moments.within()

    def test_no_array_larger_than_needed(self, monkeypatch):
        # Neither one-hot labels (B, K) nor per-sample outer products (B, D, D).
        monkeypatch.setattr(class_moments, "BLOCK_ENTRIES", 1000)
        sizes = Sizes()
        x, y = torch.randn(400, 20), torch.arange(400) % 390
        moments = ClassMoments(390).update(x, y)
        with sizes:
            moments.update(x, y)
        assert sizes.largest == 400 * 20


class TestAccuracy:
    """The table of metrics-design.md: truth on the stored float32 features, moved exactly."""

    CASES: ClassVar = {
        "1000+1e-3(mu+noise)": lambda mu, noise: 1000 + 1e-3 * (mu + noise),
        "mu+1e-4 noise": lambda mu, noise: mu + 1e-4 * noise,
        "100+mu+1e-3 noise": lambda mu, noise: 100 + mu + 1e-3 * noise,
    }

    @pytest.fixture(params=CASES)
    def case(self, request):
        rng = np.random.default_rng(7)
        y = rng.integers(0, 5, 3000)
        mu, noise = rng.normal(size=(5, 16))[y], rng.normal(size=(3000, 16))
        x = self.CASES[request.param](mu, noise).astype(np.float32)
        return request.param, x, y

    def test_float32_input_to_eleven_digits(self, case):
        _, x, y = case
        exact = x.astype(float) - x[0].astype(float)  # differences of these are exact in float64
        first = gather(x[:1000], y[:1000], 5, cuts=range(0, 1000, 128))
        moments = first.merge(gather(x[1000:], y[1000:], 5, cuts=range(0, 2000, 300)))
        for got, want in (
            (moments.within(), two_pass.within(exact, y, 5)),
            (moments.between(), two_pass.between(exact, y, 5)),
            (moments.traces, two_pass.traces(exact, y, 5)),
        ):
            np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12 * np.abs(want).max())

    def test_the_hard_case_is_hard(self, case):
        # Otherwise the test above proves nothing: unshifted float64 sums must visibly fail.
        _, x, y = case
        x64, truth = x.astype(float), np.trace(two_pass.within(x.astype(float), y, 5))
        sums = [x64[y == c] for c in range(5)]
        naive = sum(np.sum(s**2) - np.sum(s.sum(axis=0) ** 2) / len(s) for s in sums) / len(x)
        assert abs(naive / truth - 1) > 1e-9

    def test_float32_products_cost_digits_of_the_scatter_alone(self, case):
        name, x, y = case
        exact = x.astype(float) - x[0].astype(float)
        single = gather(x, y, 5, cuts=[1000], dtype=torch.float32)
        double = gather(x, y, 5, cuts=[1000])
        assert torch.equal(single.means, double.means)
        assert torch.equal(single.traces, double.traces)
        want = two_pass.within(exact, y, 5)
        error = np.abs(single.within().numpy() - want).max() / np.abs(want).max()
        assert error < 1e-5
        if name == "mu+1e-4 noise":  # the others are coarse: float32 holds their products
            assert error > 1e-12

    @pytest.mark.parametrize("exponent", [-900, -300, -80, 80, 300, 400])
    def test_float32_products_of_any_size(self, exponent):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(60, 4)), np.arange(60) % 3
        plain = gather(x, y, 3, dtype=torch.float32).within()
        scaled = gather(np.ldexp(x, exponent), y, 3, dtype=torch.float32).within()
        want = np.ldexp(plain.numpy(), 2 * exponent)
        np.testing.assert_allclose(scaled, want, rtol=1e-5, atol=1e-6 * np.abs(want).max())

    def test_an_outlying_first_sample_costs_little(self):
        rng = np.random.default_rng(1)
        x, y = rng.normal(size=(5000, 3)), np.zeros(5000, dtype=int)
        x[0] += 1e4
        moments = gather(x, y, 1, cuts=[10])
        np.testing.assert_allclose(moments.within(), two_pass.within(x, y, 1), rtol=1e-10)

    def test_equal_samples_have_no_variance_at_all(self):
        x = np.full((1000, 4), 0.1)
        moments = gather(x, np.arange(1000) % 3, 3, cuts=[7, 8])
        assert not moments.traces.any()
        assert not moments.within().any()
        assert (moments.means == 0.1).all()

    def test_counts_beyond_int32_and_sums_beyond_float32(self):
        state = ClassMoments(2, scatter=False).update([[0.0], [0.0]], [0, 1]).state_dict()
        state["counts"] = torch.tensor([2**31 + 5, 2**24])
        state["sums"] = torch.tensor([[0.0], [2.0**24]]).double()
        moments = ClassMoments(2, scatter=False).load_state_dict(state)
        moments.update([[1.0], [1.0]], [0, 1])
        assert moments.counts.tolist() == [2**31 + 6, 2**24 + 1]
        assert moments.means[1].item() == 1.0


class TestInputs:
    @pytest.mark.parametrize(
        "dtype",
        [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn],
        ids=str,
    )
    def test_every_float_type_is_summed_in_float64(self, dtype):
        x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
        y = torch.arange(50) % 3
        moments = ClassMoments(3).update(x, y)
        assert moments.means.dtype == moments.within().dtype == torch.float64
        assert moments.counts.dtype == torch.int64
        assert_same(moments, x.double().numpy(), y.numpy(), 3)

    @pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8"])
    def test_whole_numbers_are_features_too(self, dtype):
        x = (np.arange(200).reshape(50, 4) * 37 % 120).astype(dtype)  # uint8 images, for example
        y = np.arange(50) % 3
        assert_same(gather(x, y, 3, cuts=[7]), x.astype(float), y, 3)

    def test_types_may_change_from_batch_to_batch(self):
        x, y = np.arange(24.0).reshape(12, 2), np.arange(12) % 2
        moments = ClassMoments(2)
        for rows, dtype in ((slice(0, 5), "f4"), (slice(5, 6), "u1"), (slice(6, 12), "f2")):
            moments.update(x[rows].astype(dtype), y[rows])
        assert_same(moments, x, y, 2)

    @pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2), (12, 1), (1, 12)])
    def test_sequences_are_flattened(self, shape):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(12, 5)), np.arange(12) % 3
        moments = ClassMoments(3).update(x.reshape(*shape, 5), y.reshape(shape))
        assert_same(moments, x, y, 3)

    @pytest.mark.parametrize(
        "labels",
        [
            torch.tensor([1, 0, 1]),
            torch.tensor([[1], [0], [1]]),
            torch.tensor([1, 0, 1], dtype=torch.uint8),
            np.array([1, 0, 1], dtype=np.uint16),
            np.array([1, 0, 1], dtype=">i4"),
            np.array([[1], [0], [1]]),
            [1, 0, 1],
        ],
        ids=lambda v: f"{type(v).__name__}-{getattr(v, 'dtype', '')}-{np.shape(v)}",
    )
    def test_labels_of_any_integer_type_flat_or_as_a_column(self, labels):
        x = np.array([[1.0, 2], [3, 4], [5, 6]])
        assert_same(ClassMoments(2).update(x, labels), x, np.array([1, 0, 1]), 2)

    def test_arrays_that_torch_dislikes(self):
        x = np.arange(12.0).reshape(6, 2)
        frozen = x.copy()
        frozen.flags.writeable = False
        y = np.arange(6) % 2
        for variant in (frozen, x[::-1][::-1], x.astype(">f8"), np.asfortranarray(x), x.tolist()):
            assert_same(ClassMoments(2).update(variant, y), x, y, 2)

    def test_batches_of_one_and_none(self):
        x, y = np.arange(8.0).reshape(4, 2), np.array([0, 1, 1, 0])
        moments = ClassMoments(2)
        for i in range(4):
            moments.update(x[i : i + 1], y[i : i + 1])
            assert moments.update(np.zeros((0, 2)), []) is moments
        assert_same(moments, x, y, 2)

    def test_an_empty_batch_fixes_nothing(self):
        moments = ClassMoments(2).update(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
        assert moments.dim is None
        assert moments.update(torch.zeros(1, 4), [0]).dim == 4

    def test_gradients_are_not_followed_and_no_graph_is_kept(self):
        class Token:
            pass

        class Double(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.token = tokens[0]
                return 2 * x

        tokens = [Token()]
        watcher = weakref.ref(tokens[0])
        features = Double.apply(torch.randn(6, 3, requires_grad=True))
        tokens.clear()
        moments = ClassMoments(2).update(features, torch.arange(6) % 2)
        assert not any(t.requires_grad for t in moments.tensors())
        assert watcher() is not None  # the graph holds it
        del features
        gc.collect()
        assert watcher() is None

    def test_inputs_are_not_written_to(self):
        x, y = torch.randn(5, 2, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1])
        x0, y0 = x.clone(), y.clone()
        moments = ClassMoments(2).update(x, y)
        moments.update(x, y)
        assert torch.equal(x, x0)
        assert torch.equal(y, y0)
        # Nor does the caller hold the state through what it was handed.
        moments.counts.zero_()
        moments.origin.zero_()
        x.zero_()
        assert moments.num_samples == 10
        np.testing.assert_allclose(moments.means[0], x0[y == 0].mean(dim=0))

    def test_inference_mode_and_ordinary_mode_mix(self):
        x, y = torch.randn(6, 3), torch.arange(6) % 2
        with torch.inference_mode():
            moments = ClassMoments(2).update(x[:3] * 1, y[:3])
            saved = moments.state_dict()
        moments.update(x[3:], y[3:])
        with torch.inference_mode():
            moments.update(x * 1, y)
        moments.merge(ClassMoments(2).load_state_dict(saved)).update(x, y)
        assert moments.num_samples == 3 + 3 + 6 + 3 + 6

    def test_autocast_and_default_dtype_do_not_leak_in(self):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(9, 3)), np.arange(9) % 2
        torch.set_default_dtype(torch.float16)
        try:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                moments = gather(x, y, 2, cuts=[3])
                assert_same(moments, x, y, 2)
                single = gather(x, y, 2, dtype=torch.float32).within()
                np.testing.assert_allclose(single, moments.within(), rtol=1e-6, atol=1e-7)
        finally:
            torch.set_default_dtype(torch.float32)


class TestLeftOut:
    @quick
    @given(streams(), st.data())
    def test_ignored_and_dropped_rows_leave_no_trace(self, stream, data):
        x, y, k = stream
        kinds = st.sampled_from(["good", "ignored", "nan", "inf", "both"])
        fate = np.array(data.draw(st.lists(kinds, min_size=len(y), max_size=len(y))))
        spoilt = x.copy()
        spoilt[np.isin(fate, ["nan", "both"]), -1] = np.nan
        spoilt[fate == "inf", 0] = -np.inf
        labels = np.where(np.isin(fate, ["ignored", "both"]), -100, y)
        good = fate == "good"
        moments = ClassMoments(k, ignore_index=-100, nonfinite="drop")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            for rows in np.array_split(np.arange(len(y)), 3):
                moments.update(spoilt[rows], labels[rows])
        assert moments.num_ignored == np.isin(fate, ["ignored", "both"]).sum()
        assert moments.num_dropped == np.isin(fate, ["nan", "inf"]).sum()
        assert moments.counts.tolist() == np.bincount(y[good], minlength=k).tolist()
        if good.any():
            own, rows = np.unique(y[good], return_inverse=True)
            assert_same(moments.present(), x[good], rows, len(own))

    def test_ignored_rows_are_not_looked_at_and_refusals_name_the_batch_row(self):
        moments = ClassMoments(2, ignore_index=-1)
        moments.update([[np.nan], [1.0]], [-1, 0])
        with pytest.raises(ValueError, match="labels: got 2 in row 3, allowed are 0 to 1"):
            moments.update([[1.0]] * 4, [-1, -1, 0, 2])
        with pytest.raises(ValueError, match="features: row 2 has an entry"):
            moments.update([[np.nan], [1.0], [np.inf]], [-1, 0, 1])
        assert (moments.num_samples, moments.num_ignored) == (1, 1)

    def test_a_class_may_be_ignored(self):
        moments = ClassMoments(3, ignore_index=0).update([[1.0]] * 3, [0, 1, 2])
        assert moments.missing == [0]

    def test_a_batch_of_nothing_else_fixes_nothing(self):
        moments = ClassMoments(3, ignore_index=-1).update(torch.ones(2, 4), [-1, -1])
        assert (moments.dim, moments.num_ignored) == (None, 2)

    def test_dropping_warns_once_and_is_not_the_default(self):
        bad = torch.tensor([[1.0], [np.nan]])
        moments = ClassMoments(2, nonfinite="drop")
        with pytest.warns(RuntimeWarning, match="features: dropped 1 row with NaN"):
            moments.update(bad, [0, 1])
        moments.update(bad, [0, 1]).update(bad.half(), [0, 1])  # warnings are errors here
        assert (moments.num_dropped, moments.counts.tolist()) == (3, [3, 0])
        with pytest.raises(ValueError, match="features: row 1"):
            ClassMoments(2).update(bad, [0, 1])

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.half])
    def test_the_largest_numbers_are_told_from_infinity(self, dtype):
        largest = min(torch.finfo(dtype).max, 1e140)
        x = torch.tensor([[largest], [np.inf], [-largest], [-np.inf]], dtype=torch.float64).to(
            dtype
        )
        with pytest.warns(RuntimeWarning, match="dropped 2 rows"):
            moments = ClassMoments(1, nonfinite="drop").update(x, [0] * 4)
        assert moments.counts.tolist() == [2]

    def test_tallies_are_merged_and_saved(self):
        moments = ClassMoments(2, ignore_index=-1).update([[1.0], [2.0]], [-1, 0])
        moments.merge(copy.deepcopy(moments)).merge(
            ClassMoments(2, ignore_index=-1).update([[1.0]], [-1])
        )
        loaded = ClassMoments(2).load_state_dict(moments.state_dict())
        assert (loaded.num_ignored, loaded.num_dropped) == (3, 0)
        old = {n: v for n, v in moments.state_dict().items() if n not in ("ignored", "dropped")}
        assert ClassMoments(2).load_state_dict(old).num_ignored == 0


GOOD = torch.ones(2, 3)


class TestRefusals:
    @pytest.mark.parametrize(
        ("features", "labels", "message"),
        [
            (GOOD, [0, -1], "labels: got -1 in row 1, allowed are 0 to 3"),
            (GOOD, [4, 0], "labels: got 4 in row 0, allowed are 0 to 3"),
            (GOOD, np.array([0, 2**63 + 1], dtype=np.uint64), "labels: got .* in row 1"),
            (GOOD, [0.0, 1.0], "labels: got type torch.float64, need whole numbers"),
            (GOOD, [True, False], "labels: got type torch.bool"),
            (GOOD, [0], r"labels: got shape \(1,\), need \(2,\)"),
            (GOOD, [[0, 1]], r"labels: got shape \(1, 2\)"),
            (GOOD, [[0, 1], [1, 0]], r"labels: got shape \(2, 2\)"),
            (GOOD, ["a", "b"], "labels: got list, need a tensor or an array"),
            (torch.tensor([[1, 2, 3], [1, np.nan, 3]]), [0, 1], "features: row 1 has an entry"),
            (torch.tensor([[1, -np.inf, 3], [1, 2, 3]]), [0, 1], "features: row 0 has an entry"),
            (torch.tensor([[1, np.inf, 3.0]]).bfloat16(), [0], "features: row 0 has an entry"),
            (np.array([[1, 2, 1e200]]), [0], "features: row 0 .* above 1e\\+140"),
            (torch.ones(2, 4), [0, 1], "features: got 4 columns, need 3 as before"),
            (torch.ones(2, 3, 1), [0, 1], r"features: got shape \(2, 3, 1\), need \(B, D\)"),
            (torch.ones(3), [0, 1, 2], r"features: got shape \(3,\)"),
            (torch.ones(2, 0), [0, 1], r"features: got shape \(2, 0\)"),
            (torch.ones(2, 3, dtype=torch.bool), [0, 1], "features: got type torch.bool"),
            (torch.ones(2, 3, 1), [[0, 1], [1, 0]], r"\(\.\.\.\), which are \(2, 2\)"),
            (torch.ones(2, 3, dtype=torch.complex64), [0, 1], "features: got type torch.complex64"),
            ([[1.0, 2.0, 3.0], [1.0]], [0, 1], "features: got list"),
            (None, [0, 1], "features: got NoneType"),
        ],
    )
    def test_a_refused_batch_names_its_fault_and_changes_nothing(self, features, labels, message):
        moments = ClassMoments(4).update(torch.randn(5, 3), torch.arange(5) % 4)
        before = moments.state_dict()
        with pytest.raises(ValueError, match=message):
            moments.update(features, labels)
        assert_states_equal(moments.state_dict(), before)

    def test_a_refused_first_batch_leaves_the_width_open(self):
        moments = ClassMoments(4)
        with pytest.raises(ValueError, match="labels"):
            moments.update(torch.ones(2, 3), [0, 9])
        assert moments.dim is None
        assert moments.update(torch.ones(2, 5), [0, 1]).dim == 5

    def test_a_promised_width_is_held(self):
        with pytest.raises(ValueError, match="need 7 as before"):
            ClassMoments(4, dim=7).update(torch.ones(2, 3), [0, 1])

    @pytest.mark.parametrize("bad", [0, -1, 2.0, True, "3", None])
    def test_number_of_classes(self, bad):
        with pytest.raises(
            ValueError, match=r"num_classes: got .* need a whole number, at least 1"
        ):
            ClassMoments(bad)

    def test_dim(self):
        with pytest.raises(ValueError, match="dim: got 0, need a whole number, at least 1"):
            ClassMoments(3, 0)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"buffer": 0}, "buffer: got 0, need a whole number, at least 1"),
            ({"dtype": torch.bfloat16}, "dtype: got torch.bfloat16, allowed are torch.float64, t"),
            ({"dtype": "float32"}, "dtype: got float32"),
            ({"nonfinite": "ignore"}, "nonfinite: got 'ignore', allowed are raise, drop"),
            ({"ignore_index": -100.0}, "ignore_index: got -100.0, need a whole number or None"),
            ({"ignore_index": True}, "ignore_index: got True"),
            ({"device": "mps"}, "device: got mps, need one that has float64"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            ClassMoments(3, **options)

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            (ClassMoments(3), "num_classes is 3, need 2"),
            (ClassMoments(2, scatter=False), "scatter is False, need True"),
            (ClassMoments(2, dim=5), "dim is 5, need 3"),
            ({}, "got dict, need a ClassMoments"),
        ],
    )
    def test_merge(self, other, message):
        moments = ClassMoments(2).update(GOOD, [0, 1])
        before = moments.state_dict()
        with pytest.raises(ValueError, match=f"other: .*{message}"):
            moments.merge(other)
        assert_states_equal(moments.state_dict(), before)

    def test_weighting(self):
        with pytest.raises(ValueError, match="weighting: got 'classes', allowed are class, sample"):
            ClassMoments(2).update(GOOD, [0, 1]).between("classes")


class TestMissingClasses:
    def test_no_row_is_ever_made_up(self):
        moments = ClassMoments(5).update(GOOD, [0, 3])
        assert moments.missing == [1, 2, 4]
        for read in (
            lambda: moments.means,
            lambda: moments.traces,
            lambda: moments.offsets,
            lambda: moments.mean_errors,
            lambda: moments.centered_means("sample"),
            lambda: moments.global_mean(),
            lambda: moments.between(),
        ):
            with pytest.raises(ValueError, match="classes 1, 2, 4 are without samples"):
                read()

    @quick
    @given(streams())
    def test_what_weighs_samples_needs_no_class(self, stream):
        x, y, k = stream
        moments = ClassMoments(2 * k + 1).update(x, 2 * y + 1)  # classes 0, 2, ... are missing
        assert moments.missing == list(range(0, 2 * k + 1, 2))
        full = gather(x, y, k)
        for got, want in (
            (moments.global_mean("sample"), full.global_mean("sample")),
            (moments.between("sample"), full.between("sample")),
            (moments.within(), full.within()),
        ):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)
        assert_same(moments.present(), x, y, k)

    def test_present_is_a_copy(self):
        moments = ClassMoments(3).update(GOOD, [0, 2])
        moments.present().update(5 * GOOD, [0, 1])
        assert not moments.within().any()
        assert moments.counts.tolist() == [1, 0, 1]

    def test_nothing_at_all(self):
        moments = ClassMoments(3)
        assert moments.num_samples == 0
        assert moments.missing == [0, 1, 2]
        for read in (moments.within, moments.present, moments.between, lambda: moments.means):
            with pytest.raises(ValueError, match="no samples were gathered"):
                read()

    def test_long_lists_are_shortened(self):
        moments = ClassMoments(100).update(GOOD, [0, 1])
        with pytest.raises(ValueError, match=r"classes 2, 3, .* and 88 more are without"):
            _ = moments.means


class TestState:
    @pytest.mark.parametrize("scatter", [True, False])
    def test_saved_and_loaded_without_pickled_objects(self, scatter):
        rng = np.random.default_rng(3)
        x, y = rng.normal(size=(20, 3)), np.arange(20) % 4
        moments = gather(x, y, 4, scatter=scatter)
        file = io.BytesIO()
        torch.save(moments.state_dict(), file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
        assert all(isinstance(v, (int, torch.Tensor)) for v in state.values())
        loaded = ClassMoments(4, scatter=scatter).load_state_dict(state)
        assert_states_equal(loaded.state_dict(), moments.state_dict())
        loaded.update(x, y)
        assert moments.num_samples == 20  # nothing is shared
        assert_states_equal(state, moments.state_dict())
        if scatter:
            assert_same(loaded, np.r_[x, x], np.r_[y, y], 4)

    def test_an_empty_state_can_be_saved_too(self):
        state = ClassMoments(4, dim=3).state_dict()
        loaded = ClassMoments(4).load_state_dict(state)
        assert loaded.dim == 3
        assert loaded.update(GOOD, [0, 1]).num_samples == 2

    def test_loading_replaces(self):
        full = ClassMoments(2).update(GOOD, [0, 1])
        assert full.load_state_dict(ClassMoments(2).state_dict()).num_samples == 0
        assert full.update(GOOD, [0, 1]).num_samples == 2

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"num_classes": 3}, "num_classes is 3, need 2"),
            ({"scatter": 0}, "scatter is 0, need 1"),
            ({"dim": 4}, "dim is 4, need 3"),
            ({"version": 2}, "got version 2"),
            ({"counts": torch.tensor([1, -1])}, "counts has entries out of range"),
            ({"counts": torch.tensor([1.0, 1.0])}, "counts is .* need torch.int64"),
            ({"sums": torch.full((2, 3), np.nan).double()}, "sums has entries out of range"),
            ({"sums": torch.zeros(2, 3)}, "sums is .* need torch.float64"),
            ({"products": torch.zeros(0, 0).double()}, r"products is .* need .* \(3, 3\)"),
            ({"anchors": 3}, "anchors is int"),
            ({"ignored": -1}, "ignored is -1, need a whole number, at least 0"),
            ({"dropped": 1.5}, "dropped is 1.5"),
            ({"squares": None}, "has no entry 'squares'"),
        ],
    )
    def test_a_refused_state_changes_nothing(self, change, message):
        moments = ClassMoments(2).update(GOOD, [0, 1])
        state = moments.state_dict() | change
        state = {name: value for name, value in state.items() if value is not None}
        before = moments.state_dict()
        with pytest.raises(ValueError, match=f"state: .*{message}"):
            moments.load_state_dict(state)
        assert_states_equal(moments.state_dict(), before)

    def test_copies_and_pickles(self):
        moments = ClassMoments(2).update(GOOD, [0, 1])
        for twin in (copy.deepcopy(moments), pickle.loads(pickle.dumps(moments))):
            assert_states_equal(twin.state_dict(), moments.state_dict())
            twin.update(GOOD, [0, 1])
        assert moments.num_samples == 2
        assert repr(moments) == "ClassMoments(num_classes=2, dim=3, scatter=True, num_samples=2)"


def assert_states_equal(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        same = torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name]
        assert same, name


# -- classes of few samples ------------------------------------------------------------------------


def counted_samples(counts):
    generator = torch.Generator().manual_seed(4)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    order = torch.randperm(len(labels), generator=generator)
    centers = torch.randn(len(counts), 6, generator=generator)
    x = centers[labels] + 0.1 * torch.randn(len(labels), 6, generator=generator)
    return x[order], labels[order]


@pytest.mark.parametrize("least", [1, 2, 4])
def test_rare_classes_can_be_left_out(least):
    counts = [9, 1, 5, 2, 1, 7, 3, 4]
    x, y = counted_samples(counts)
    found = ClassMoments(8).update(x, y).at_least(least)
    kept = torch.tensor(counts) >= least
    rows = kept[y]
    expected = ClassMoments(8).update(x[rows], y[rows])
    assert found.counts.tolist() == expected.counts.tolist()
    assert found.missing == expected.missing
    there, plain = found.present(), expected.present()
    assert torch.allclose(there.means, plain.means)
    assert torch.allclose(there.traces, plain.traces)
    assert float(there.within().trace()) == pytest.approx(float(plain.within().trace()), rel=1e-12)
    if least <= 2:  # a class seen once has no scatter
        assert torch.allclose(there.within(), plain.within(), atol=1e-14)
    whole = ClassMoments(8).update(x, y)
    assert whole.at_least(least).counts.sum() == rows.sum()
    assert whole.num_samples == len(y)  # unchanged
    with pytest.raises(ValueError, match="min_count: got 0"):
        whole.at_least(0)


def test_a_report_of_frequent_classes_names_the_others():
    x, y = counted_samples([9, 1, 5, 2, 1, 7])
    head = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    with pytest.warns(RuntimeWarning, match="classes 1, 3, 4 are of fewer than 3 samples"):
        report = CollapseReport.from_loader([(x, y)], head, min_count=3)
    rows = (y != 1) & (y != 3) & (y != 4)
    logits = x[rows].double() @ head.T.double()
    assert report.accuracy == pytest.approx(
        float((logits.argmax(dim=1) == y[rows]).double().mean())
    )
    assert report.missing == (1, 3, 4)
    assert report.min_count == 3
    with pytest.raises(ValueError, match="fewer than 3 samples"):
        _ = report.geometry


def test_a_report_of_many_groups_has_few_rows():
    """Neither classes nor groups of many counts have rows of their own."""
    labels = torch.arange(5000)
    generator = torch.Generator().manual_seed(0)
    moments = ClassMoments(5000, scatter=False)
    for _ in range(2):
        moments.update(torch.randn(5000, 4, generator=generator), labels)
    report = CollapseReport.measure(moments, torch.randn(5000, 4), groups=labels)
    assert len(report.rows) < 100
    assert len(report.to_frame()) == len(report.rows)
