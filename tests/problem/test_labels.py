"""Labels: the two readers of batches agree on every form, and refuse what could be two things."""

from collections import UserDict, namedtuple

import numpy as np
import pandas as pd
import pytest

from tightframe.problem.labels import class_counts, find_labels, label_counts

torch = pytest.importorskip("torch")
batches = pytest.importorskip("tightframe.data.batches")

LABELS = np.array([0, 1, 1, 2, 2, 2])


# -- where a batch has them ------------------------------------------------------------------------

Y = torch.tensor(LABELS)
X = torch.arange(12.0).reshape(6, 2)
IDS = torch.arange(24).reshape(6, 4) + 7
MASK = torch.ones(6, 4, dtype=torch.int64)
INDEX = torch.tensor([5, 3, 4, 0, 2, 1])
TOKENS = torch.stack([Y, Y, Y, Y], dim=1)
LENGTHS = torch.tensor([4, 3, 3, 2, 2, 1])
NAMED = namedtuple("NAMED", ["inputs", "labels", "index"])
FOREIGN = namedtuple("FOREIGN", ["inputs", "kind", "index"])

#: Batches with `labels=` (None: found without), each with the labels 0, 1, 1, 2, 2, 2.
READ = {
    "a pair": ((X, Y), None),
    "a pair as a list": ([X, Y], None),
    "a pair of arrays": ((X.numpy(), LABELS), None),
    "a pair of lists": ((X.tolist(), LABELS.tolist()), None),
    "a pair with a column": ((X, Y[:, None]), None),
    "a pair with whole floats": ((X, Y.double()), None),
    "several inputs in a tuple": (((X, INDEX), Y), None),
    "named inputs": (({"pixels": X}, Y), None),
    "small integers": ((X, Y.to(torch.uint8)), None),
    "inputs, mask, labels": ((IDS, MASK, Y), None),
    "inputs, weights, labels": ((X, torch.rand(6), Y), None),
    "inputs, labels, weights": ((X, Y, torch.rand(6)), None),
    "inputs, labels, truth values": ((X, Y, Y > 0), None),
    "inputs, number of the batch, labels": ((X, 3, Y), None),
    "inputs, number of the data set, labels": ((X, torch.tensor([3]), Y), None),
    "inputs in a list, mask, labels": ([[IDS, IDS], MASK, Y], None),
    "two inputs, labels": ((IDS, IDS + 1, Y), None),
    "images, labels, three notes": (
        (torch.ones(6, 3, 4, 4), Y, torch.stack([INDEX, Y, Y], 1)),
        None,
    ),
    "a named tuple": (NAMED(X, Y, INDEX), None),
    "labels of a collator": ({"input_ids": IDS, "attention_mask": MASK, "labels": Y}, None),
    "label": ({"pixels": X, "label": Y}, None),
    "targets": ({"pixels": X, "targets": Y}, None),
    "target": ({"pixels": X, "target": Y}, None),
    "y": ({"x": X, "y": Y}, None),
    "another kind of mapping": (UserDict(x=X, labels=Y), None),
    "the same labels twice": ({"x": X, "y": Y, "targets": Y.clone()}, None),
    "an index at a position": ((X, Y, INDEX), 1),
    "a position from the end": ((X, INDEX, Y), -1),
    "the first position": ((Y, X), 0),
    "a key": ({"x": X, "kind": Y}, "kind"),
    "a key of several": ({"x": X, "y": INDEX, "targets": Y}, "targets"),
    "a field": (FOREIGN(X, Y, INDEX), "kind"),
    "a function": ({"a": (X, Y)}, lambda batch: batch["a"][1]),
    "a function of a tuple": ((X, Y, INDEX), lambda batch: batch[1]),
}

#: Batches that are refused, with what the message says.
REFUSED = {
    "inputs, labels, index": ((X, Y, INDEX), None, r"entries 1 and 2 of a batch of 3 could each"),
    "nested inputs": (((X, X), Y, INDEX), None, r"entries 1 and 2 of a batch of 3 could each"),
    "three of four": ((X, Y, INDEX, Y), None, r"entries 1 and 2 and 3 of a batch of 4 could each"),
    "no labels in three": ((X, X, torch.rand(6)), None, "no entry of a tuple of 3 can be"),
    "one-hot labels": ((X, torch.eye(6), torch.rand(6)), None, "no entry of a tuple of 3 can be"),
    "other lengths": ((X, Y[:4], torch.rand(6)), None, "no entry of a tuple of 3 can be"),
    "token labels of zeros and ones": ((IDS, MASK, (TOKENS > 0).long()), None, "no entry"),
    "two that differ": (
        {"x": X, "y": INDEX, "targets": Y},
        None,
        "has targets and y, which differ",
    ),
    "two forms": ({"x": X, "label": Y, "labels": TOKENS}, None, "has labels and label, which"),
    "batches of two loaders": ({"a": (X, Y), "b": (X, Y)}, None, "a batch has a, b; need one of"),
    "a loader with numbers": (((X, Y), 0, 0), None, "no entry of a tuple of 3 can be"),
    "labels and index in a pair": ((X, (Y, INDEX)), None, "a tuple of 2 where its labels should"),
    "batches of two loaders in a list": ([[X, Y], [X, Y]], None, "a list of 2 where its labels"),
    "mixed labels": ((X, (Y, Y, 0.3)), None, "a tuple of 3 where its labels should"),
    "named labels in a pair": ((X, {"label": Y}), None, "of type dict where its labels should"),
    "labels in a mapping's entry": ({"x": X, "y": {"label": Y}}, None, "of type dict where its"),
    "lengths, labels of tokens": ((IDS, LENGTHS, TOKENS), None, "entries 1 and 2 of a batch of 3"),
    "labels of tokens, lengths": ((IDS, TOKENS, LENGTHS), None, "entries 1 and 2 of a batch of 3"),
    "vectors of tokens with labels and lengths": (
        (torch.rand(6, 4, 3), TOKENS, LENGTHS - 1),
        None,
        "entries 1 and 2 of a batch of 3",
    ),
    "a tensor": (X, None, r"a batch is a tensor of shape \(6, 2\)"),
    "inputs alone": ((X,), None, "a batch is a tuple of 1"),
    "a number": (7, None, "a batch is of type int"),
    "no such key": ({"x": X, "y": Y}, "kind", "a batch has x, y; need one of kind"),
    "no such field": (NAMED(X, Y, INDEX), "kind", "need one of kind"),
    "no such position": ((X, Y), 5, "got 5, need a position in a batch of 2"),
    "a key of a tuple": ((X, Y), "labels", "need one of labels"),
}


@pytest.mark.parametrize("form", READ)
def test_both_readers_find_the_labels(form):
    batch, labels = READ[form]
    assert label_counts(iter([batch]), labels).tolist() == [1, 2, 3]
    split = batches.split_batch(batch, labels)
    assert split.labels.flatten().tolist() == LABELS.tolist()
    if not callable(labels):
        assert len(split.args) + len(split.kwargs) == len(batch) - 1 or form == "named inputs"


@pytest.mark.parametrize("form", REFUSED)
def test_both_readers_refuse_what_they_cannot_tell(form):
    batch, labels, message = REFUSED[form]
    for read in (batches.split_batch, lambda batch, labels: label_counts(iter([batch]), labels)):
        with pytest.raises(ValueError, match=f"labels: .*{message}"):
            read(batch, labels)


def test_labels_of_tokens_beside_a_mask():
    ids, mask = IDS, MASK.clone()
    mask[0, 2:] = 0
    found = find_labels((ids, mask, TOKENS))
    assert found.labels is TOKENS
    assert found.rest == (ids, mask)


def test_a_function_leaves_the_batch_as_it_is():
    split = batches.split_batch((X, Y, INDEX), lambda batch: batch[1])
    assert len(split.args) == 3
    batch = type("Graph", (), {"y": Y})()  # an object of another library
    split = batches.split_batch(batch, lambda batch: batch.y)
    assert split.args == (batch,)


def test_no_torch_is_needed():
    """The theory half reads batches of NumPy arrays without loading torch."""
    import subprocess
    import sys

    code = (
        "import sys; import numpy as np; from tightframe.problem.labels import label_counts;"
        "print(label_counts(iter([(np.ones((3, 2)), np.array([0, 1, 1]), np.ones(3))])).tolist(),"
        "'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[1, 2] False"


# -- how many --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["npy", "npz", "txt", "csv", "parquet"])
def test_labels_from_files(tmp_path, ending):
    path = tmp_path / f"labels.{ending}"
    table = pd.DataFrame({"image": list("abcdef"), "label": LABELS})
    if ending == "npy":
        np.save(path, LABELS)
    elif ending == "npz":
        np.savez(path, y=LABELS, features=np.ones(3))
    elif ending == "txt":
        np.savetxt(path, LABELS, fmt="%d")
    elif ending == "csv":
        table.to_csv(path)
    else:
        table.to_parquet(path)
    assert label_counts(path).tolist() == [1, 2, 3]
    assert label_counts(str(path)).tolist() == [1, 2, 3]


def test_labels_from_arrays_and_loaders():
    torch = pytest.importorskip("torch")
    assert label_counts(LABELS).tolist() == [1, 2, 3]
    assert label_counts(LABELS.astype(float).tolist()).tolist() == [1, 2, 3]
    assert label_counts(torch.tensor(LABELS)).tolist() == [1, 2, 3]
    data = torch.utils.data.TensorDataset(torch.ones(6, 2), torch.tensor(LABELS))
    assert label_counts(torch.utils.data.DataLoader(data, 4)).tolist() == [1, 2, 3]
    batches = [{"input_ids": 0, "labels": LABELS[:2]}, {"input_ids": 0, "labels": LABELS[2:]}]
    assert label_counts(batch for batch in batches).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "labels: got"),
        ([[0, 1]], "labels: got"),
        (["a", "b"], "labels: got"),
        ([0, -1], "labels: sample 1 has -1"),
        ([0, 0.5], r"labels: sample 1 has 0\.5"),
        ([0, np.nan], "labels: sample 1 has nan"),
        ([0, 10**9], "labels: sample 1 has 1000000000"),
        ([0, 2], "labels: class 1 has no samples"),
        (7, "labels: got int"),
        ("nowhere.npy", "labels: nowhere.npy is no file"),
        (iter([1, 2]), "labels: a batch is of type int, need"),
        (iter([{"x": 1}]), "labels: a batch has x; need one of labels"),
    ],
)
def test_bad_labels_are_named(source, message):
    with pytest.raises(ValueError, match=message):
        label_counts(source)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", b"nonsense", "a.npy"),
        ("a.npz", b"nonsense", "not an .npz file"),
        ("a.csv", b"x,y2\n1,2\n", "a.csv has x, y2; need one of labels"),
        ("a.csv", b"", "a.csv"),
        ("a.parquet", b"nonsense", "a.parquet"),
        ("a.txt", b"one two\n", "a.txt"),
        ("a.txt", b"", "labels: got"),
        ("a.json", b"[0, 1]", "ends in '.json'"),
    ],
)
def test_bad_label_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        label_counts(tmp_path / name)


def test_pickled_labels_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"a\.npy"):
        label_counts(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.eye(3, dtype=int)[LABELS], r"zeros and ones of shape \(6, 3\), which could be one-hot"),
        (np.eye(3)[LABELS], r"zeros and ones of shape \(6, 3\), which could be one-hot"),
        ([[0, 1], [1]], "got a list of 2, need one whole number a sample"),
        ([0, 1, -100], "sample 2 has -100, need a whole number from 0; leave out what is ignored"),
    ],
)
def test_labels_of_batches_that_cannot_be_counted(rows, message):
    for batch in ((X, rows), {"x": X, "labels": rows}):
        with pytest.raises(ValueError, match=f"labels: .*{message}"):
            label_counts(iter([batch, batch]))
    with pytest.raises(ValueError, match=r"labels: .*need one whole number"):
        label_counts([[0, 1], [1]])


def test_tokens_of_two_classes_are_counted_beside_others():
    batches = [(IDS, (TOKENS > 0).long()), (IDS, TOKENS)]
    assert label_counts(iter(batches)).tolist() == [8, 28, 12]


def test_a_list_of_batches_is_read_as_batches():
    loader = [[X[:4], Y[:4]], [X[4:], Y[4:]]]
    assert label_counts(loader).tolist() == [1, 2, 3]
    assert label_counts([tuple(batch) for batch in loader]).tolist() == [1, 2, 3]
    assert label_counts([{"labels": LABELS}]).tolist() == [1, 2, 3]


def test_labels_names_the_column_of_a_file(tmp_path):
    table = pd.DataFrame({"species": LABELS, "labels": LABELS * 0})
    table.to_csv(tmp_path / "a.csv")
    assert label_counts(tmp_path / "a.csv", "species").tolist() == [1, 2, 3]
    np.savez(tmp_path / "a.npz", species=LABELS, y=LABELS * 0)
    assert label_counts(tmp_path / "a.npz", "species").tolist() == [1, 2, 3]
    np.savez(tmp_path / "two.npz", labels=LABELS, y=LABELS * 0)
    with pytest.raises(ValueError, match=r"two.npz has labels and y, which differ"):
        label_counts(tmp_path / "two.npz")
    np.save(tmp_path / "a.npy", LABELS)
    with pytest.raises(ValueError, match=r"a.npy: got 'species', but the file has no names"):
        label_counts(tmp_path / "a.npy", "species")
    with pytest.raises(ValueError, match="labels: got 'species' with labels"):
        label_counts(LABELS, "species")


def test_labels_of_which_all_are_ignored_say_so(tmp_path):
    path = tmp_path / "labels.npy"
    np.save(path, np.full(7, -100))
    with pytest.raises(ValueError, match=r"labels: all 7 in .*labels.npy are -100, which is left"):
        class_counts(path)
    for labels in ([255] * 3, ["255"] * 3):
        with pytest.raises(ValueError, match=r"labels: all 3 are 255, .* none is left"):
            class_counts(labels, ignore_index=255)
