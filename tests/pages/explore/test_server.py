import io
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

pytest.importorskip("dash")

from tests.pages.explore import files
from tightframe import cli
from tightframe.pages.explore.server import MAX_REQUEST, make_app
from tightframe.pages.explore.state import State

HOST = "127.0.0.1:8050"
JSON = "application/json"


@pytest.fixture(scope="module")
def client():
    return make_app().server.test_client()


def get(client, path="/", host=HOST, **headers):
    environ = {"SERVER_PORT": "8050"}
    return client.get(path, headers={"Host": host} | headers, environ_overrides=environ)


def post(client, path, data, host=HOST, **headers):
    environ = {"SERVER_PORT": "8050"}
    return client.post(path, data=data, headers={"Host": host} | headers, environ_overrides=environ)


@pytest.mark.parametrize("host", ["127.0.0.1:8050", "localhost:8050"])
def test_this_computer_is_answered(client, host):
    page = get(client, host=host)
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "unsafe-eval" not in page.headers["Content-Security-Policy"]
    assert "script-src 'self' 'sha256-" in page.headers["Content-Security-Policy"]
    assert b"http://" not in page.data.replace(b"http://www.w3.org", b"")
    assert b"https://" not in page.data


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8050", "127.0.0.1:9", "127.0.0.1"])
def test_other_names_are_not(client, host):
    assert get(client, host=host).status_code == 403


def test_other_pages_are_not(client):
    assert get(client, Origin="http://evil.example").status_code == 403
    assert get(client, Origin="null").status_code == 403
    assert get(client, Origin="http://127.0.0.1:8050").status_code == 200


def test_requests_are_bounded(client):
    big = post(
        client, "/_dash-update-component", b" " * (MAX_REQUEST + 1), **{"Content-Type": JSON}
    )
    assert big.status_code == 413


def test_upload(client, tmp_path):
    path = files.good(tmp_path, State())[0]
    answer = post(client, "/upload?name=good.npz", path.read_bytes()).json
    assert answer["counts"] == "4x10"
    assert set(answer) == {"key", "counts"}
    refused = post(client, "/upload?name=x.npz", io.BytesIO(b"no zip")).json
    assert set(refused) == {"message"}
    assert "x.npz: not an .npz file" in refused["message"]


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_is_none_is_refused(port, capsys):
    assert cli.run_command(["explore", "--no-open", "--port", port]) == 2
    assert f"port: got {port}, need a whole number from 0 to 65535" in capsys.readouterr().err


def test_a_port_in_use_is_refused_in_one_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.run_command(["explore", "--no-open", "--port", str(port)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"port: got {port}, which cannot be used" in message


def test_without_dash_the_command_says_what_to_install():
    code = (
        "import sys; sys.modules['dash'] = None; "
        "from tightframe.cli import run_command; print(run_command(['explore', '--no-open']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2"
    line = "tightframe: dash: not installed; pip install 'tightframe[explore]'\n"
    assert done.stderr == line


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_ends_it_with_130_and_no_traceback():
    code = "from tightframe.cli import main; main()"
    server = subprocess.Popen(
        [sys.executable, "-c", code, "explore", "--no-open", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = server.stdout.readline().split()[2]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url) as page:
            assert page.status == 200
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=30)
    finally:
        server.kill()
    assert server.returncode == 130
    assert err == "tightframe: interrupted\n"
