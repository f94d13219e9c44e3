"""Features files for tests: a collapsed network's, and hostile ones."""

import io
import struct
import zipfile

import numpy as np
from safetensors.numpy import save_file

import tightframe as tf
from tightframe.pages.explore.state import State

#: Of every kind that the page takes.
STATES = [
    State(),
    State(counts="500x5,100x5", weight_decay="0.02"),
    State(counts="30,20,10x2", loss="mse", bias="free"),
    State(counts="9x3,4x3", loss="mse", depth="3", weight_decay="0.01,0.02,0.03"),
    State(counts="60x3,20x2", features="nonnegative"),
    State(counts="90x3,30x3", bias="decayed", bias_decay="0.1", class_weights="balanced"),
    State(counts="90x3,30x3", logit_adjustment="prior", dim="3"),
]


def network(state, samples=4, noise=0.01, seed=0):
    """Return arrays of a network near the predicted geometry, rotated, a few samples a class."""
    rng = np.random.default_rng(seed)
    solution = tf.solve(state.problem())
    means, weight = solution.class_means, solution.weights[0]
    turn, _ = np.linalg.qr(rng.normal(size=(len(means), len(means))))
    labels = np.repeat(np.arange(len(weight)), samples)
    features = (turn @ means).T[labels]
    features = features + noise * np.abs(means).max() * rng.normal(size=features.shape)
    return {"features": features, "labels": labels, "weight": weight @ turn.T}


def good(folder, state):
    """Write the same network in both formats."""
    arrays = network(state)
    np.savez(folder / "good.npz", **arrays)
    save_file(arrays, folder / "good.safetensors")
    return [folder / "good.npz", folder / "good.safetensors"]


def header(shape, descr="<f8"):
    """Return an .npy header that announces a shape, and no numbers."""
    out = io.BytesIO()
    values = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, values)
    return out.getvalue()


def hostile(folder):
    """Write files that must be refused; return them with what the refusal says."""
    files = {}

    def zipped(name, content, message, method=zipfile.ZIP_DEFLATED, times=1):
        with zipfile.ZipFile(folder / name, "w", method, compresslevel=1) as archive:
            for i in range(times):
                archive.writestr(f"features{i or ''}.npy", content)
        files[name] = message

    with (
        zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("features.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(513):
            member.write(bytes(2**20))
    files["bomb.npz"] = "take 513 MiB unpacked, allowed are 512 MiB"
    zipped("many.npz", header((2**18,)), "take 600 MiB unpacked, allowed are 512", times=300)
    zipped("header.npz", header((2**40,)), "allowed are 512 MiB")
    zipped("empty-items.npz", header((2**40,), "<U0"), "allowed are 512 MiB")
    zipped("lzma.npz", b"x" * 100, "compressed as NumPy never does", zipfile.ZIP_LZMA)
    zipped("list.npz", b"", "a list of contents of", times=30000)
    np.savez(folder / "pickle.npz", features=np.array([{"a": 1}, print], dtype=object))
    files["pickle.npz"] = "holds Python objects"
    plain = {"garbage.npz": b"garbage" * 99, "empty.npz": b"", "cut.npz": b"PK\x03\x04" + bytes(99)}
    for name, content in plain.items():
        (folder / name).write_bytes(content)
        files[name] = r"not an \.npz file"
    np.save(folder / "array.npy", np.eye(3))
    (folder / "array.npy").rename(folder / "array.npz")
    files["array.npz"] = r"not an \.npz file"
    (folder / "model.pkl").write_bytes(b"\x80\x04.")
    files["model.pkl"] = r"ends in '\.pkl', need \.npz or \.safetensors"
    (folder / "long.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}" * 50)
    files["long.safetensors"] = "a list of contents of"
    promise = b'{"features":{"dtype":"F64","shape":[1099511627776],"data_offsets":[0,8]}}'
    (folder / "short.safetensors").write_bytes(struct.pack("<Q", len(promise)) + promise + bytes(8))
    files["short.safetensors"] = "not a safetensors file"
    np.savez(folder / "missing.npz", features=np.eye(3))
    files["missing.npz"] = "labels: missing"
    np.savez(folder / "wide.npz", features=np.zeros((2, 5000)), labels=[0, 1], weight=np.eye(2))
    np.savez(folder / "one.npz", features=np.eye(2), labels=[0, 0], weight=np.ones((1, 2)))
    files["one.npz"] = "weight: got 1 row, need at least 2"
    files["wide.npz"] = "features: got 5000 columns, this page measures up to 2048"
    np.savez(folder / "text.npz", features=np.array(["a"]), labels=[0], weight=np.array(["b"]))
    files["text.npz"] = "weight: got shape"
    return files
