"""Networks are read from files of any kind; what is unclear is refused, what is decided is said."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.io import savemat

from tightframe.files import read_json, read_npy
from tightframe.heads.last_layer import LastLayer
from tightframe.runs.features_only import measure_features
from tightframe.runs.measure import measure
from tightframe.runs.network_files import parse_keys, read_last_layer, read_network

RNG = np.random.default_rng(0)
NAMES = np.array(["cat", "dog", "eel"])
Y = np.repeat(np.arange(3), 5)
W = RNG.normal(size=(3, 4)).astype(np.float32)
B = RNG.normal(size=3).astype(np.float32)
X = (W[Y] + 0.1 * RNG.normal(size=(15, 4))).astype(np.float32)


def check(network, *, bias=True, names=None):
    """What was read is what was written."""
    assert np.array_equal(network.features, X)
    assert np.array_equal(network.labels, Y)
    assert np.array_equal(network.weight, W)
    assert np.array_equal(network.bias, B) if bias else network.bias is None
    assert network.class_names == names


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


# -- formats ---------------------------------------------------------------------------------------


def test_matlab(tmp_path):
    path = tmp_path / "a.mat"
    names = np.array(["cat", "dog", "eel"], dtype=object)  # cells
    arrays = {"fts": X, "labels": Y, "weight": W, "bias": B, "class_names": names, "more": {"a": 1}}
    savemat(path, arrays)
    check(read_network(path), names=("cat", "dog", "eel"))
    savemat(path, arrays | {"labels": names[Y]})
    check(read_network(path), names=("cat", "dog", "eel"))
    savemat(path, arrays | {"labels": Y + 1})
    with pytest.raises(ValueError, match="labels: got 3, need 0 to 2; do they start from 1"):
        read_network(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"a\.mat: not a MATLAB file that is read here"):
        read_network(path)
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"  # HDF5 behind it
    path.write_bytes(header + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"MATLAB 7\.3 is read by h5py.*numpy\.savez.*-v7"):
        read_network(path)


@pytest.mark.parametrize(
    ("ending", "said"),
    [("h5", "is read by h5py"), ("hdf5", "is read by h5py"), ("pkl", "is a pickle, which may run")],
)
def test_what_is_not_read_says_how_it_would_be(tmp_path, ending, said):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(b"anything")
    with pytest.raises(ValueError, match=f"a.{ending}: {said}.*numpy.savez"):
        read_network(path)


@pytest.mark.parametrize("ending", ["npz", "pt", "pth", "bin", "safetensors"])
def test_all_in_one_file(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    arrays = {"features": X, "labels": Y, "weight": W, "bias": B}
    if ending == "npz":
        np.savez(path, **arrays)
    else:
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        if ending == "safetensors":
            from safetensors.torch import save_file

            save_file(tensors, path)
        else:
            torch.save(tensors, path)
    check(read_network(path))
    layer = read_last_layer(path)
    assert isinstance(layer, LastLayer)
    check(layer)


@pytest.mark.parametrize("labels", [Y, NAMES[Y]])
@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "npy", "txt", "npz"])
def test_features_labels_and_checkpoint_in_files_of_their_own(tmp_path, ending, labels):
    np.save(tmp_path / "x.npy", X)
    state = {"conv.weight": torch.ones(2, 4), "fc.weight": torch.tensor(W)}
    torch.save({"model": state | {"fc.bias": torch.tensor(B)}, "epoch": 3}, tmp_path / "m.pt")
    path = tmp_path / f"y.{ending}"
    table = pd.DataFrame({"label": labels})
    if ending == "npy":
        np.save(path, labels)
    elif ending == "npz":
        np.savez(path, y=labels)
    elif ending == "txt":
        path.write_text("\n".join(map(str, labels)))
    elif ending == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="\t" if ending == "tsv" else ";")
    names = None if labels is Y else tuple(NAMES.tolist())
    for weight in ("m.pt:fc.weight", "m.pt"):
        keys = {"labels": path, "weight": tmp_path / weight}
        check(read_network(tmp_path / "x.npy", keys), names=names)
    text = f"labels={path},weight={tmp_path / 'm.pt'}:model.fc.weight"
    check(read_network(tmp_path / "x.npy", text), names=names)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_features_of_a_table_are_its_numbers(tmp_path, ending):
    table = pd.DataFrame(X.astype(float), columns=[f"f{i}" for i in range(4)])
    table = table.assign(file="x.png", label=NAMES[Y])
    path = tmp_path / f"a.{ending}"
    table.to_csv(path) if ending == "csv" else table.to_parquet(path)
    network = read_network(path)
    assert np.allclose(network.features, X)
    assert network.labels.tolist() == Y.tolist()
    assert "features are 4 columns of numbers, f0 to f3" in network.notes[0]
    assert "file" in network.notes[0].partition("left out")[2]


def test_a_column_of_lists_is_a_matrix(tmp_path):
    pd.DataFrame({"vector": list(X), "label": Y}).to_parquet(tmp_path / "a.parquet")
    assert np.array_equal(read_network(tmp_path / "a.parquet").features, X)


def test_a_table_without_a_header(tmp_path):
    table = pd.DataFrame(X.astype(float)).assign(y=Y)
    table.to_csv(tmp_path / "a.csv", header=False, index=False)
    with pytest.raises(ValueError, match=r"labels: missing; there are 0 \(15\), 1 \(15\)"):
        read_network(tmp_path / "a.csv")
    network = read_network(tmp_path / "a.csv", "labels=4")
    assert np.allclose(network.features, X)


def test_short_floats_are_widened(tmp_path):
    tensors = {"features": torch.tensor(X).bfloat16(), "labels": torch.tensor(Y)}
    torch.save(tensors | {"weight": torch.tensor(W).half()}, tmp_path / "a.pt")
    network = read_network(tmp_path / "a.pt")
    assert np.allclose(network.features, X, atol=0.02)
    np.savez(tmp_path / "b.npz", features=X, labels=Y.astype(np.float16), weight=W)
    assert read_network(tmp_path / "b.npz").labels.tolist() == Y.tolist()


def test_a_head_in_another_layout_is_turned_and_said(tmp_path):
    network = read_network(npz(tmp_path / "a.npz", features=X, labels=Y, weight=W.T, bias=B))
    check(network)
    assert network.notes == ("weight has its classes along columns, (4, 3): it is turned",)
    network = read_network(
        npz(tmp_path / "b.npz", features=X, labels=Y, weight=W[:, :, None, None])
    )
    check(network, bias=False)
    with pytest.warns(UserWarning, match="1 x 1 convolution"):
        read_last_layer(tmp_path / "b.npz")
    codes = npz(tmp_path / "c.npz", features=X, labels=Y, weight=np.ones((3, 4), np.int8))
    with pytest.raises(ValueError, match="weight: got int8, which are codes of a quantised layer"):
        read_network(codes)


# -- names -----------------------------------------------------------------------------------------


def test_other_names(tmp_path):
    path = npz(tmp_path / "a.npz", A=X, **{"model.head.weight": W, "model.head.bias": B, "t.y": Y})
    with pytest.raises(ValueError, match=r"a.npz: features: missing; there are A \(15, 4\), model"):
        read_network(path)
    check(read_network(path, "features=A, labels=y"))
    check(read_network(path, {"features": "A", "labels": "t.y", "weight": "head.weight"}))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("features", "keys: got 'features', need ARRAY=NAME"),
        ("feature=A", "keys: got 'feature', allowed are features, labels"),
        ("features=B", r"keys: .*a.npz has no 'B'; it has A \(15, 4\)"),
        ("features=A,labels=nowhere.npy:y", "nowhere.npy: no such file"),
        ("features=A,labels=y", "keys: 'y' in .*a.npz may be u.y or v.y; give it whole"),
        (3, "keys: got int, need a mapping or text"),
    ],
)
def test_bad_keys_are_named(tmp_path, keys, message):
    path = npz(tmp_path / "a.npz", A=X, **{"u.y": Y, "v.y": Y})
    with pytest.raises(ValueError, match=message):
        read_network(path, keys)


def test_two_heads_are_not_chosen_from(tmp_path):
    arrays = {"features": X, "labels": Y, "fc.weight": W, "head.weight": 2 * W}
    with pytest.raises(ValueError, match=r"weight: .* has fc.weight and head.weight, which differ"):
        read_network(npz(tmp_path / "a.npz", **arrays))
    check(read_network(tmp_path / "a.npz", "weight=fc.weight"), bias=False)


def test_names_of_classes(tmp_path):
    arrays = {"features": X, "labels": NAMES[Y], "weight": W, "bias": B}
    network = read_network(npz(tmp_path / "a.npz", **arrays))
    check(network, names=("cat", "dog", "eel"))
    assert "order of the alphabet, 'cat' first" in network.notes[0]
    network = read_network(tmp_path / "a.npz", class_names="eel,dog,cat")
    assert (network.labels.tolist(), network.notes) == ((2 - Y).tolist(), ())
    own = npz(tmp_path / "b.npz", **arrays, class_names=NAMES[::-1])
    assert read_network(own).class_names == ("eel", "dog", "cat")
    with pytest.raises(ValueError, match="class_names: got 2, weight has 3 rows"):
        read_network(own, class_names=["cat", "dog"])
    with pytest.raises(
        ValueError, match=r"class_names: missing; the labels are 3 names, .* 4 rows"
    ):
        read_network(npz(tmp_path / "c.npz", **arrays | {"weight": np.ones((4, 4))}))


def test_ignored_and_absent(tmp_path):
    labels = np.where(Y == 1, -100, Y)
    path = npz(tmp_path / "a.npz", features=X, labels=labels, weight=W, bias=B)
    network = read_network(path)
    assert (len(network.features), network.notes) == (
        10,
        ("5 of 15 samples are labelled -100: left out",),
    )
    assert np.array_equal(network.features, X[Y != 1])
    with pytest.raises(ValueError, match="labels: got -100 in row 5"):
        read_network(path, ignore_index=None)


def test_held_out_samples(tmp_path):
    path = npz(tmp_path / "a.npz", X=X, t=NAMES[Y], weight=W)
    keys = {"features": "X", "labels": "t"}
    npz(tmp_path / "same.npz", X=X[::5], t=NAMES)
    npz(tmp_path / "usual.npz", features=X[::5], y=NAMES)
    for name in ("same.npz", "usual.npz"):
        features, labels = read_network(path, keys, held_out=tmp_path / name).held_out
        assert np.array_equal(features, X[::5])
        assert labels.tolist() == [0, 1, 2]
    layer = read_last_layer(
        npz(tmp_path / "b.npz", X=X, y=Y, V=X[:3], u=Y[:3], weight=W),
        "held_out_features=V,held_out_labels=u",
    )
    assert layer.held_out[1].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=r"held_out: got a file, but .* has held-out samples"):
        read_network(
            tmp_path / "b.npz",
            "held_out_features=V,held_out_labels=u",
            held_out=tmp_path / "usual.npz",
        )
    npz(tmp_path / "bad.npz", features=X[:1], y=np.array(["fox"]))
    with pytest.raises(ValueError, match="held_out labels: got 'fox', which is none of the 3"):
        read_network(path, keys, held_out=tmp_path / "bad.npz")


def test_the_text_of_keys():
    assert parse_keys("features=X,weight=C:\\m.pt:fc.weight") == {
        "features": "X",
        "weight": "C:\\m.pt:fc.weight",
    }


# -- what is no array ------------------------------------------------------------------------------


def test_pointers_are_called_that(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    for name in ("a.npz", "a.npy", "a.pt", "a.safetensors", "a.csv", "a.parquet", "a.txt"):
        (tmp_path / name).write_bytes(pointer)
        with pytest.raises(ValueError, match=f"{name}: is a Git LFS pointer, .*git lfs pull"):
            read_network(tmp_path / name)
    (tmp_path / "a.json").write_bytes(b"/annex/objects/SHA256E-s8--9f.json\n")
    with pytest.raises(ValueError, match=r"a.json: is a git-annex pointer"):
        read_json(tmp_path / "a.json")


def test_nobody_is_told_to_load_a_pickle(tmp_path):
    np.save(tmp_path / "a.npy", NAMES.astype(object))
    npz(tmp_path / "a.npz", features=X, labels=NAMES.astype(object))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pt")
    torch.save({"w": torch.ones(2)}, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    reads = {"a.npy": read_npy, "a.npz": read_network, "a.pt": read_network, "b.pt": read_network}
    for name, read in reads.items():
        with pytest.raises(ValueError, match=name) as error:
            read(tmp_path / name)
        text = str(error.value)
        assert "never loaded" in text
        assert not any(word in text for word in ("allow_pickle", "weights_only", "safe_globals"))


# -- measured --------------------------------------------------------------------------------------


def test_absent_classes_are_rivals(tmp_path):
    """Class 1 has no samples, and the samples of class 0 are taken for it."""
    features = np.where((Y == 0)[:, None], W[1], X)[Y != 1]
    path = npz(tmp_path / "a.npz", features=features, labels=NAMES[Y[Y != 1]], weight=2 * W)
    with pytest.warns(RuntimeWarning) as caught:
        found = measure(read_network(path, class_names=NAMES))
    assert [str(w.message) for w in caught] == ["class dog is without samples, but rivals"]
    said = found.to_dict()
    rows = {row["name"]: row for row in said["classes"]}
    assert set(rows) == {"cat", "eel"}
    assert rows["cat"]["rival"] == 1
    assert rows["cat"]["accuracy"] == float(np.mean((features[:5] @ W.T).argmax(1) == 0))
    # The means are of the two classes that are there, the classifier is of all.
    for part, vectors in (
        ("classifier", 2 * W.astype(float)),
        ("means", np.stack([features[:5].astype(float).mean(0), X[10:].astype(float).mean(0)])),
    ):
        gram = vectors @ vectors.T
        distance = np.linalg.norm(
            gram / np.linalg.norm(gram) - np.eye(len(gram)) / np.sqrt(len(gram))
        )
        assert said["distances"]["orthogonal frame"][part] == pytest.approx(distance, rel=1e-6)
    with pytest.raises(ValueError, match="labels: class dog is without samples; a prediction"):
        measure(read_network(path, class_names=NAMES), weight_decay=1e-3, feature_decay=1e-3)


def test_features_without_a_classifier(tmp_path):
    path = npz(tmp_path / "a.npz", features=X, labels=Y * 2)  # class 1 and 3 have no samples
    network = read_network(path)
    with pytest.raises(ValueError, match="weight: missing; say where the classifier is by keys"):
        read_last_layer(path)
    found = measure_features(network)
    # From the definitions: Sigma_W, Sigma_B over three classes.
    parts = X.reshape(3, 5, 4).astype(float)
    means = parts.mean(1)
    centred = means - means.mean(0)
    spread = (parts - means[:, None]).reshape(15, 4)
    within = spread.T @ spread / 15
    between = centred.T @ centred / 3
    assert found.numbers["nc1"] == pytest.approx(
        np.trace(within @ np.linalg.pinv(between, rcond=1e-9)) / 3, rel=1e-5
    )
    assert found.numbers["nc1_quotient"] == pytest.approx(
        np.trace(within) / np.trace(between), rel=1e-5
    )
    gram = centred @ centred.T
    etf = np.eye(3) - 1 / 3
    distance = np.linalg.norm(gram / np.linalg.norm(gram) - etf / np.linalg.norm(etf))
    assert found.numbers["nc2"] == pytest.approx(distance, rel=1e-5)
    assert found.to_dict()["missing"].tolist() == [1, 3]
