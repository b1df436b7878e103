"""The server of a folder of results: what it shows, and everything that it refuses."""

import http.client
import json
import os
import socket
import threading
from contextlib import contextmanager
from urllib.parse import quote

import pandas as pd
import pytest
from athanor.hardware.errors import InputError
from athanor.reports.explored.folder import MOST_BYTES, NotThere, ResultsFolder
from athanor.reports.explored.server import ResultsServer
from hypothesis import given, settings
from hypothesis import strategies as st
from support.toy_runs import made

MODEL = "<script>alert(1)</script>"


@contextmanager
def serving(folder):
    server = ResultsServer(ResultsFolder(folder), 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(server, path, method="GET", **headers):
    """(status, headers, text) of a request as it stands."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in {"Host": f"127.0.0.1:{server.server_port}", **headers}.items():
        for each in value if isinstance(value, list) else [value]:
            connection.putheader(name.replace("_", "-"), each)
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode("utf-8", "replace")
    connection.close()
    return answer.status, {key.lower(): value for key, value in answer.getheaders()}, text


def state(folder):
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in [folder, *folder.rglob("*")]}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder with a run, a study of which it is a point, other files, and ways out."""
    base = tmp_path_factory.mktemp("served")
    folder = base / "out"
    (folder / "my study").mkdir(parents=True)
    (base / "secret.txt").write_text("SECRET")
    (base / "secrets").mkdir()
    (base / "secrets" / "run.json").write_text("SECRET")
    plain = made().to_plain()
    plain["summary"] |= {"memory_per_rank_bytes": {"total": 1.0, "capacity": 2.0}, "model": MODEL}
    (folder / "run.json").write_text(json.dumps(plain))
    row = {"command": "simulate", "machine": "bench", "model": MODEL, "mesh": "ep=2,dp=2", "status": "ok", "reason": ""}
    rows = [
        {"point": at, **row, "plan.zero": at, "step_seconds": seconds, "inputs": json.dumps({"machine": "bench"})}
        for at, seconds in enumerate((5.0, plain["summary"]["step_seconds"]))
    ]
    columns = [
        "point",
        "command",
        "machine",
        "model",
        "plan.zero",
        "status",
        "reason",
        "mesh",
        "step_seconds",
        "inputs",
    ]
    pd.DataFrame(rows)[columns].to_csv(folder / "my study" / "points.csv", index=False)
    (folder / "report.html").write_text("<script>alert(2)</script>")
    (folder / ".hidden.txt").write_text("SECRET")
    (folder / "notes.sh").write_text("SECRET")
    (folder / "broken.json").write_text('{"format": "athanor-run/2"}')
    (folder / "out.txt").symlink_to(base / "secret.txt")
    (folder / "outside").symlink_to(base / "secrets")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.txt")
    return folder


@pytest.fixture(scope="module")
def server(results):
    before = state(results)
    with serving(results) as found:
        yield found
    assert state(results) == before  # nothing was written


def test_it_shows_results_and_links_runs_to_points(server):
    status, headers, text = ask(server, "/")
    assert status == 200
    assert 'href="/view/run.json"' in text
    assert 'href="/view/my%20study/points.csv"' in text
    assert 'href="/point/1/my%20study/points.csv"' in text  # the run is the study's second point
    assert 'href="/file/report.html"' in text
    shown = text.partition("<main")[2].partition("<script")[0]
    assert not any(name in shown for name in ("hidden", "notes.sh", "out.txt", "outside", "loop", "SECRET", MODEL))
    assert "script-src 'sha256-" in headers["content-security-policy"]
    for path, wanted in {
        "/view/run.json": 'href="/point/1/my%20study/points.csv"',
        "/view/my%20study/points.csv": 'href="/point/0/my%20study/points.csv"',
        "/point/1/my%20study/points.csv": 'href="/view/run.json"',
    }.items():
        status, _, text = ask(server, path)
        assert status == 200
        assert wanted in text
        assert 'href="/">All results' in text
        assert MODEL not in text


def test_files_of_the_folder_run_apart(server):
    status, headers, text = ask(server, "/file/report.html")
    assert (status, text) == (200, "<script>alert(2)</script>")
    assert headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", "0.0.0.0:{port}", "127.0.0.1:{port}.evil", "", ["127.0.0.1:{port}", "evil.example"]])  # fmt: skip
def test_other_hosts_are_refused(server, host):
    port = server.server_port
    value = [each.format(port=port) for each in host] if isinstance(host, list) else host.format(port=port)
    status, _, text = ask(server, "/", Host=value)
    assert status == 403
    assert "run.json" not in text


def test_localhost_is_answered_and_other_sites_pages_are_not(server):
    assert ask(server, "/", Host=f"localhost:{server.server_port}")[0] == 200
    assert ask(server, "/view/run.json", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="image")[0] == 403
    assert ask(server, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")[0] == 200


OUT = [
    "/../secret.txt",
    "/file/../secret.txt",
    "/file/%2e%2e/secret.txt",
    "/file/..%2fsecret.txt",
    "/file/..%5csecret.txt",
    "/file//etc/passwd",
    "/file/%2fetc%2fpasswd",
    "/file/out.txt",
    "/file/outside/run.json",
    "/view/outside/run.json",
    "/file/loop/report.html",
    "/file/.hidden.txt",
    "/file/notes.sh",
    "/file/pipe.txt",
    "/file/my%20study",
    "/file/run.json%00.txt",
    "/file/run.json/x.txt",
    "/view/../../secret.txt",
    "/file/",
    "/view/",
    "/point/0/run.json",
    "/point/9/my%20study/points.csv",
    "/point/-1/my%20study/points.csv",
    "/nothing",
    "/file/%ff.txt",
    "http://127.0.0.1/file/report.html",
    "*",
    "/file/./report.html",
]


@pytest.mark.parametrize("path", OUT)
def test_nothing_outside_is_read(server, path):
    status, _, text = ask(server, path)
    assert status in (400, 404)
    assert "SECRET" not in text
    assert "root:" not in text


def test_only_reading_is_answered(server):
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"):
        assert ask(server, "/", method)[0] == 501
    assert ask(server, "/", Content_Length="5")[0] == 400
    status, headers, text = ask(server, "/file/report.html", "HEAD")
    assert (status, text, headers["content-length"]) == (200, "", "25")


def test_a_broken_file_is_said_in_a_line_and_the_server_goes_on(server):
    status, _, text = ask(server, "/view/broken.json")
    assert status == 422
    assert "broken.json: a run has no or a wrong" in text
    with socket.create_connection(("127.0.0.1", server.server_port)) as rude:
        rude.sendall(b"GET / HTTP/1.1\r\n")
    assert ask(server, "/")[0] == 200


def test_it_listens_on_this_computer_only(server):
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(InputError, match="cannot be listened on"):
        ResultsServer(server.folder, server.server_port)
    with pytest.raises(InputError, match="no such folder"):
        ResultsFolder(server.folder.path / "run.json")


@settings(max_examples=100)
@given(st.text(st.sampled_from("/.\\ab%2e\0~ \u2025"), max_size=12) | st.text(max_size=12))
def test_no_name_leads_out_of_a_folder(results, name):
    try:
        content = ResultsFolder(results).read(name)
    except NotThere:
        return
    assert b"SECRET" not in content


def test_large_files_are_not_read(tmp_path):
    with (tmp_path / "run.json").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(NotThere, match="more than the 64 MiB"):
        ResultsFolder(tmp_path).read("run.json")
    with serving(tmp_path) as server:
        assert ask(server, "/")[0] == 200
        assert ask(server, f"/view/{quote('run.json')}")[0] == 404
