import numpy as np
import pytest

from tightframe.data import load


def arrays(shape=(5,), dtype=np.float32, counts=(4, 6, 10), test=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    tests = np.tile(np.arange(len(counts)), test)
    values = {"train_labels": labels, "test_labels": tests}
    for part, count in (("train", len(labels)), ("test", len(tests))):
        values[f"{part}_inputs"] = (200 * rng.random((count, *shape))).astype(dtype)
    return values


def test_npz_with_a_split(tmp_path):
    values = arrays()
    np.savez(tmp_path / "x.npz", **values)
    dataset = load(str(tmp_path / "x.npz"))
    assert np.array_equal(dataset.train_inputs, values["train_inputs"])
    assert np.array_equal(dataset.test_inputs, values["test_inputs"])
    assert np.array_equal(dataset.train_labels, values["train_labels"])
    assert dataset.train_counts.tolist() == [4, 6, 10]
    assert dataset.name == str(tmp_path / "x.npz")
    some = load("x.npz", root=tmp_path, train_per_class=2, seed=1)
    assert some.train_counts.tolist() == [2, 2, 2]
    assert np.array_equal(some.test_inputs, values["test_inputs"])
    with pytest.raises(ValueError, match=r"got 5; class 0 of .* has 4 training samples"):
        load(tmp_path / "x.npz", train_per_class=5)


def test_npz_that_the_seed_splits(tmp_path):
    values = arrays()
    np.savez(tmp_path / "x.npz", inputs=values["train_inputs"], labels=values["train_labels"])
    dataset = load(tmp_path / "x.npz")
    assert dataset.train_counts.tolist() == [3, 4, 8]  # four fifths, rounded down
    assert dataset.test_counts.tolist() == [1, 2, 2]
    ours = np.concatenate([dataset.train_inputs, dataset.test_inputs])
    assert {row.tobytes() for row in ours} == {row.tobytes() for row in values["train_inputs"]}
    assert load(tmp_path / "x.npz", train_per_class=1).train_counts.tolist() == [1, 1, 1]
    other = load(tmp_path / "x.npz", seed=1)
    assert not np.array_equal(other.train_inputs, dataset.train_inputs)
    with pytest.raises(ValueError, match="at least one must stay for testing"):
        load(tmp_path / "x.npz", train_per_class=4)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((5,), (5,)), ((4, 5), (1, 4, 5)), ((3, 4, 5), (3, 4, 5)), ((1, 4, 3), (1, 4, 3))],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int16])
def test_folder_of_npy_files(tmp_path, shape, expected, dtype):
    values = arrays(shape, dtype)
    for key, array in values.items():
        np.save(tmp_path / f"{key}.npy", array)
    dataset = load(tmp_path)
    scale = 255 if dtype == np.uint8 else 1
    for part in ("train", "test"):
        inputs = getattr(dataset, f"{part}_inputs")
        source = values[f"{part}_inputs"].reshape(len(inputs), -1)
        assert np.allclose(inputs, source / scale, rtol=1e-7)
        assert type(inputs) is np.ndarray
        assert inputs.flags.writeable
    assert dataset.input_shape == expected


def test_folder_of_two_npz_files(tmp_path, monkeypatch):
    values = arrays()
    for part in ("train", "test"):
        np.savez(
            tmp_path / f"{part}.npz",
            inputs=values[f"{part}_inputs"],
            labels=values[f"{part}_labels"][:, None],  # a column, as some libraries have it
        )
    monkeypatch.chdir(tmp_path.parent)
    dataset = load(tmp_path.name)  # a folder's bare name
    assert np.array_equal(dataset.train_inputs, values["train_inputs"])
    assert np.array_equal(dataset.test_labels, values["test_labels"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_inputs": None}, "has test_labels, train_inputs, train_labels; need train_inputs, "),
        ({"train_inputs": np.zeros((20, 2, 2, 2, 2))}, r"train_inputs: got shape \(20, 2, 2, 2"),
        ({"train_inputs": np.zeros((20, 8, 8, 3))}, r"looks like \(N, H, W, C\)"),
        ({"train_inputs": np.zeros((20, 0))}, "not empty"),
        ({"train_inputs": np.full((20, 5), np.nan)}, "train_inputs: NaN or infinite"),
        ({"train_inputs": np.full((20, 5), "a")}, "train_inputs: got <U1, need real"),
        ({"test_inputs": np.zeros((9, 4))}, r"test_inputs: got samples of shape \(4,\)"),
        ({"train_labels": np.zeros(19, int)}, "train_labels: got 19, need 20, one a sample"),
        ({"train_labels": np.zeros(20)}, "train_labels: got shape .* of float64"),
        ({"train_labels": np.zeros(20, bool)}, "train_labels: got shape .* of bool"),
        ({"train_labels": np.arange(20) - 1}, "train_labels: got -1 at 0"),
        ({"train_labels": np.zeros(20, int)}, "train_labels: got one class"),
        ({"train_labels": np.arange(20) % 3 + 1}, "largest label is 3, but no sample has label 0"),
        ({"train_labels": np.arange(20) % 2 * 10**9}, "no sample has label 1$"),
        ({"train_labels": np.full(20, 2**63, np.uint64)}, "train_labels: got 9223372036854775808"),
        ({"test_labels": np.full(9, 3)}, "test_labels: got 3 at 0, need 0 to 2"),
        ({"train_inputs": np.full((20, 5), None)}, "x.npz: not an .npz file of arrays"),
    ],
)
def test_bad_arrays_are_named(tmp_path, changes, message):
    values = {key: value for key, value in (arrays() | changes).items() if value is not None}
    np.savez(tmp_path / "x.npz", **values)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "x.npz")


def test_bad_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.npz: no such file"):
        load(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match="has no arrays; need train_inputs"):
        load(tmp_path)
    np.save(tmp_path / "inputs.npy", np.array([None]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"inputs\.npy: not an \.npy file of numbers"):
        load(tmp_path)
    np.savez(tmp_path / "x.npz", inputs=np.zeros((3, 2)), labels=np.array([0, 1, 1]))
    with pytest.raises(ValueError, match=r"class 0 of .* has 1 sample, need at least 2"):
        load(tmp_path / "x.npz")
