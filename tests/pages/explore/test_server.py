import io
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from dataclasses import asdict

import numpy as np
import pytest

pytest.importorskip("dash")

from tests.pages.explore import files
from tightframe import cli
from tightframe.pages.explore.server import MAX_REQUEST, make_app
from tightframe.pages.explore.state import State
from tightframe.pages.explore.upload import measure_file
from tightframe.pages.explore.views import measured_tables

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


# -- the first screen ------------------------------------------------------------------------------


def first_screen(client, body, **headers):
    return post(client, "/scene", json.dumps(body), **({"Content-Type": JSON} | headers))


def test_the_first_screen_comes_line_by_line(client):
    query = State(counts="40x2,10x2").query()
    answer = first_screen(client, {"query": query, "file": None})
    assert answer.mimetype == "application/x-ndjson"
    scenes = [json.loads(line) for line in answer.text.splitlines()]
    scenes = [scene for scene in scenes if "total" not in scene]
    assert [scene["final"] for scene in scenes] == [False, False, True]
    assert "no-referrer" in answer.headers["Referrer-Policy"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "need an object with query and file"),
        ({"query": "", "file": None, "more": 1}, "need an object with query and file"),
        ({"query": 1, "file": None}, "query, file: need text"),
        ({"query": "", "file": []}, "query, file: need text"),
        ({"query": "colour=red", "file": None}, "link: got 'colour', allowed are counts"),
        ({"query": "counts=5;5", "file": None}, "counts: cannot read '5;5'"),
        ({"query": "weight_decay=-1", "file": "unknown"}, "weight_decay: got -1.0, need a finite"),
        ({"query": "counts=5x1000000", "file": None}, "counts: got 1000000 classes, this page"),
        ({"query": "counts=%ed%a0%80", "file": None}, "counts: cannot read"),
        ({"query": "counts=\ud800", "file": None}, "counts: cannot read"),
    ],
)
def test_what_the_first_screen_cannot_show_is_one_line(client, capfd, body, message):
    answer = first_screen(client, body)
    assert answer.status_code == 200
    (line,) = answer.text.splitlines()
    assert json.loads(line)["message"].startswith(message)
    assert "\n" not in json.loads(line)["message"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000])
def test_what_is_no_json_gets_no_first_screen(client, capfd, body):
    answer = post(client, "/scene", body, **{"Content-Type": JSON})
    assert answer.status_code == 400
    assert capfd.readouterr() == ("", "")


def test_other_pages_get_no_first_screen(client):
    body = {"query": "", "file": None}
    assert first_screen(client, body, Origin="http://evil.example").status_code == 403
    # A form of another page, for which browsers ask nobody first.
    assert first_screen(client, body, **{"Content-Type": "text/plain"}).status_code == 415


def test_the_sample_is_a_file_like_others(client):
    sample = get(client, "/sample.npz").data
    answer = post(client, "/upload?name=sample.npz", sample).json
    assert answer["counts"] == "40x5,8x5"
    body = {"query": State(counts=answer["counts"]).query(), "file": answer["key"]}
    first = json.loads(first_screen(client, body).text.splitlines()[0])
    assert '"rings":[[' in first["wheel"]


def test_labels_alone_are_counted(client):
    answer = post(client, "/upload?name=l.txt", b"0\n0\n1\n").json
    assert answer == {"key": None, "counts": "2,1"}


# -- callbacks -------------------------------------------------------------------------------------

CALLBACK = "/_dash-update-component"


@pytest.fixture(scope="module")
def callbacks(client):
    """Every callback of the server as the browser asks for it, with the page's first values."""
    values = asdict(State()) | {"theme": "light", "file": None, "url": "", "advise": 1}
    values["later"] = {"state": asdict(State(view="path")), "theme": "light"}

    def places(wanted):
        return [place | {"value": values[place["id"]]} for place in wanted]

    asked = []
    for known in get(client, "/_dash-dependencies").json:
        if known["clientside_function"] is None:
            outputs = [
                dict(zip(("id", "property"), name.rsplit(".", 1), strict=True))
                for name in known["output"].strip(".").split("...")
            ]
            asked.append(
                {
                    "output": known["output"],
                    "outputs": outputs if known["output"].startswith("..") else outputs[0],
                    "inputs": places(known["inputs"]),
                    "state": places(known["state"]),
                    "changedPropIds": ["{id}.{property}".format(**known["inputs"][0])],
                }
            )
    return asked


def call(client, body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return post(client, CALLBACK, data, **{"Content-Type": JSON})


def test_every_callback_is_answered(client, callbacks, capfd):
    assert len(callbacks) == 4
    for body in callbacks:
        assert call(client, body).status_code == 200
    less = {name: value for name, value in callbacks[0].items() if name != "state"}
    assert call(client, less).status_code == 200  # as the browser has it where there is none
    assert capfd.readouterr() == ("", "")


NO_CALLBACKS = [
    *(b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5000, b'"x"', b"null", b"[]", b"{}", b"0"),
    *({"output": x} for x in (None, 1, [], {}, "", "..", "theme.data", "x.y", "link.href")),
]


@pytest.mark.parametrize("body", NO_CALLBACKS)
def test_what_is_no_callback_is_refused(client, capfd, body):
    assert call(client, body).status_code == 400
    assert capfd.readouterr() == ("", "")


def test_another_kind_of_content_is_refused(client, capfd):
    assert post(client, CALLBACK, b"{}", **{"Content-Type": "text/plain"}).status_code == 415
    assert capfd.readouterr() == ("", "")


ODD = (None, 1, "x", True, [], {}, [[]], [None], [{}], [[{}]], {"id": "counts"}, [1.5])


def test_spoilt_callbacks_are_refused(client, callbacks, capfd):
    """Every entry of every callback in turn, by everything that it is not."""
    for good in callbacks:
        for name in ("outputs", "inputs", "state", "changedPropIds"):
            for value in ODD:
                if value == [] and not good[name]:
                    continue  # as it is
                answer = call(client, good | {name: value})
                allowed = {400} if name != "changedPropIds" or value != [] else {200}
                assert answer.status_code in allowed, (good["output"], name, value)
        for name in ("inputs", "state"):
            for i, place in enumerate(good[name]):
                for key in place:
                    for value in (["x"], {"x": 1}, "\ud800", True if key != "value" else [None]):
                        spoilt = [*good[name]]
                        spoilt[i] = place | {key: value}
                        assert call(client, good | {name: spoilt}).status_code == 400
                less = good[name][:i] + good[name][i + 1 :]
                assert call(client, good | {name: less}).status_code == 400
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"state": None}, 400),
        ({"state": {}}, 400),
        ({"theme": 1}, 400),
        ({"more": 1}, 400),
        ({"state": asdict(State()) | {"counts": 5}}, 400),
        ({"state": asdict(State()) | {"view": "nothing"}}, 400),
        ({"state": asdict(State()) | {"more": ""}}, 400),
        ({"state": asdict(State(view="path", counts="nonsense"))}, 200),
        ({"state": asdict(State(view="phase", weight_decay="-1"))}, 200),
    ],
)
def test_spoilt_second_steps_are_refused_or_told(client, callbacks, capfd, change, code):
    (good,) = [body for body in callbacks if body["inputs"][0]["id"] == "later"]
    place = good["inputs"][0]
    answer = call(client, good | {"inputs": [place | {"value": place["value"] | change}]})
    assert answer.status_code == code
    if code == 200:
        assert b"need" in answer.data or b"cannot read" in answer.data
    assert capfd.readouterr() == ("", "")


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost:9000", "evil.example", "<script>:8050"])
def test_under_another_address_the_page_says_which_are_allowed(client, host):
    answer = get(client, host=host)
    assert answer.status_code == 403
    assert "http://127.0.0.1:8050/" in answer.text
    assert "http://localhost:8050/" in answer.text
    assert "ssh -L 8050:127.0.0.1:8050" in answer.text
    assert '<meta name="viewport"' in answer.text  # it is read on a phone as well
    assert "script" not in answer.text


# -- the command -----------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_is_none_is_refused(port, capsys):
    assert cli.run_command(["explore", "--no-open", "--port", port]) == 2
    assert f"port: got {port}, need a whole number from 0 to 65535" in capsys.readouterr().err


def test_a_file_may_be_there_from_the_start(tmp_path):
    names = ["ant", "bee", "cat"]
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 2], 6)  # nothing of a bee
    weight = rng.normal(size=(3, 4))
    features = weight[labels] + 0.1 * rng.normal(size=(12, 4))
    np.savez(tmp_path / "x.npz", X=features, y=np.array(names)[labels], weight=weight)
    opened = measure_file(
        tmp_path / "x.npz", "x.npz", limit=None, keys="features=X", class_names=names
    )
    assert (opened.counts, opened.samples) == (
        None,
        "12 samples, 3 classes, 1 of them without samples",
    )
    app = make_app(opened)
    (key,) = [store.data for store in app.layout.children if getattr(store, "id", "") == "file"]
    assert key is not None
    shown = str(measured_tables(opened, None))
    assert "ant" in shown
    assert "bee" in shown  # without samples, but a rival


def test_a_run_opens_at_its_own_decays(run_folder, solutions, monkeypatch):
    from tightframe.pages.explore import server
    from tightframe.runs.store import load_run

    served = []
    monkeypatch.setattr(server, "serve", lambda *given: served.append(given))
    name = next(record.name for record in load_run(run_folder).settings if record.finished)
    given = ["explore", str(run_folder), "--setting", name, "--no-open", "--port", "0"]
    assert cli.run_command(given) == 0
    ((port, opens, opened, problem),) = served
    assert (port, opens) == (0, False)
    assert opened.counts == State.from_problem(problem.replace(class_names=None)).counts
    assert problem == solutions[name].problem


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
