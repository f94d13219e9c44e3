import dataclasses
import hashlib
import http.server
import os
import threading

import numpy as np
import pytest

from tests.data import files
from tightframe.data import images, load, registry
from tightframe.data.download import RemoteFile, download

CONTENT = bytes(range(256)) * 3000


@pytest.fixture
def server():
    """A web server of ``server.content``; ``server.asked`` are the paths that were asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            content = self.server.content.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            if self.path.startswith("/short"):
                self.send_header("Content-Length", str(len(content) + 10))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.asked = {}, []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def remote(server, *paths, content=CONTENT):
    urls = tuple(server.url + path for path in paths)
    return RemoteFile("file.bin", urls, hashlib.sha256(content).hexdigest(), len(content))


def test_a_file_is_fetched_checked_and_kept(server, tmp_path):
    server.content["/file.bin"] = CONTENT
    file = remote(server, "/file.bin")
    folder = tmp_path / "new" / "folder"
    assert download(file, folder).read_bytes() == CONTENT
    assert os.listdir(folder) == ["file.bin"]
    download(file, folder)
    assert server.asked == ["/file.bin"]  # what is there is not fetched again


@pytest.mark.parametrize(
    ("path", "content", "reason"),
    [
        ("/absent", None, "404"),
        ("/wrong", CONTENT[:-1] + b"?", "has SHA-256 .*, published is"),
        ("/large", CONTENT + b"?", "is larger than the published 768000 bytes"),
        ("/small", CONTENT[:-1], "ends after 767999 of 768000 bytes"),
        ("/short", CONTENT, "IncompleteRead|ends after|is larger"),
    ],
)
def test_what_is_not_the_published_file_leaves_nothing_behind(
    server, tmp_path, path, content, reason
):
    server.content[path] = content
    if path == "/short":
        server.content[path] = content[:-1]
    file = remote(server, path)
    with pytest.raises(OSError, match=reason) as error:
        download(file, tmp_path)
    start = f"{tmp_path / 'file.bin'}: cannot be downloaded ({server.url}{path}: "
    assert str(error.value).startswith(start)
    assert os.listdir(tmp_path) == []
    # The next mirror is asked.
    server.content["/good"] = CONTENT
    assert download(remote(server, path, "/good"), tmp_path).read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["file.bin"]


def test_a_server_that_is_not_there(tmp_path):
    file = RemoteFile("file.bin", ("http://127.0.0.1:9/x",), "0" * 64, 1)
    with pytest.raises(OSError, match=r"127\.0\.0\.1:9/x: .*refused"):
        download(file, tmp_path)


def test_a_file_of_the_user_is_left_alone(server, tmp_path):
    server.content["/file.bin"] = CONTENT
    (tmp_path / "file.bin").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"file\.bin: is not the published file"):
        download(remote(server, "/file.bin"), tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == b"mine"
    assert server.asked == []


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path):
    server.content["/file.bin"] = CONTENT
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(OSError, match="taken"):
        download(remote(server, "/file.bin"), tmp_path / "taken")


def serve(server, monkeypatch, name, folder):
    """Let the server stand for the mirrors of a data set; its files are those of ``folder``."""
    known = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        server.content[f"/{path.name}"] = content
        checksum = hashlib.sha256(content).hexdigest()
        known.append(RemoteFile(path.name, (f"{server.url}/{path.name}",), checksum, len(content)))
    source = dataclasses.replace(images.IMAGE_SOURCES[name], remote=tuple(known))
    monkeypatch.setitem(registry.SOURCES, name, source)


def test_load_downloads_when_asked_and_once(server, monkeypatch, tmp_path, no_places):
    train = files.write_mnist(tmp_path / "server", packed=True)[0]
    serve(server, monkeypatch, "mnist", tmp_path / "server")
    with pytest.raises(ValueError, match="download=True"):
        load("mnist")
    assert server.asked == []
    dataset = load("mnist", download=True)
    assert np.array_equal(dataset.train_inputs, (train / 255).reshape(40, 20).astype(np.float32))
    assert len(server.asked) == 4
    assert sorted(os.listdir(no_places / "mnist")) == sorted(os.listdir(tmp_path / "server"))
    load("mnist")
    load("mnist", download=True)
    assert len(server.asked) == 4


def test_downloads_go_to_the_first_place(server, monkeypatch, tmp_path, no_places):
    files.write_cifar(tmp_path / "server", 100, binary=True, packed=True)
    serve(server, monkeypatch, "cifar100", tmp_path / "server")
    monkeypatch.setenv("TIGHTFRAME_DATA", str(tmp_path / "variable"))
    load("cifar100", download=True, root=tmp_path / "root")
    assert os.listdir(tmp_path / "root" / "cifar100") == ["cifar-100-binary.tar.gz"]
    load("cifar100", download=True)
    assert os.listdir(tmp_path / "variable" / "cifar100") == ["cifar-100-binary.tar.gz"]
    assert not no_places.exists()


def test_half_a_download_is_finished_later(server, monkeypatch, tmp_path, no_places):
    files.write_mnist(tmp_path / "server", packed=True)
    serve(server, monkeypatch, "mnist", tmp_path / "server")
    last = server.content.pop("/train-labels-idx1-ubyte.gz")
    with pytest.raises(OSError, match=r"train-labels-idx1-ubyte\.gz: cannot be downloaded"):
        load("mnist", download=True)
    server.content["/train-labels-idx1-ubyte.gz"] = last
    assert len(load("mnist", download=True).train_labels) == 40
    assert server.asked.count("/train-images-idx3-ubyte.gz") == 1


def test_what_is_published_is_asked_for_over_https():
    for source in images.IMAGE_SOURCES.values():
        for file in source.remote:
            assert all(url.startswith("https://") for url in file.urls)
            assert all(url.endswith(f"/{file.name}") for url in file.urls)
            assert len(bytes.fromhex(file.sha256)) == 32
        # What is fetched is what one of the layouts reads.
        names = {file.name for file in source.remote}
        assert any(
            names == {name + ending for name in layout.files}
            for layout in source.layouts
            for ending in layout.endings
        )
