"""Data sets of the hub, asked of one on loopback by the real `datasets`; then without a network."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow
import pytest
from pyarrow import parquet

from tests.conftest import run_script

NAME = "openai/gsm8k"
COMMIT = "a" * 40
READ = """
import sys
from utils.data.sources import Source
for place in sys.argv[1:]:
    rows = [row.content for row in Source(place, split="test").rows()]
    print(len(rows), rows[0]["question"])
"""
ASKED_AS_A_BENCHMARK = """
from src.benchmarks.loading import load_benchmarks
from src.config.loading import load_config
config = load_config(["config/tiny/baseline_config.yaml"], ["evaluation.benchmarks=[gsm8k]"])
print([problem.answer for problem in load_benchmarks(config)["gsm8k"].test])
"""


class HubHandler(BaseHTTPRequestHandler):
    """The part of the hub's interface that reading a data set of Parquet files needs."""

    files: dict[str, bytes]

    def log_message(self, *_):
        """Say nothing."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        api, resolve = f"/api/datasets/{NAME}", f"/datasets/{NAME}/resolve/"
        revision, _, file = path.removeprefix(resolve).partition("/")
        if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            siblings = [{"rfilename": file} for file in self.files]
            self._answer({"id": NAME, "sha": COMMIT, "tags": [], "siblings": siblings})
        elif path.startswith(f"{api}/tree/"):
            self._answer(self._listing(path.removeprefix(f"{api}/tree/").partition("/")[2]))
        elif path.startswith(resolve) and revision in ("main", COMMIT):
            self._file(file)
        else:
            missing = "Revision" if NAME in path else "Repo"
            self._answer({"error": "not found"}, 404, {"X-Error-Code": f"{missing}NotFound"})

    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self._answer(self._described(f for f in form.get("paths", []) if f in self.files))

    def _listing(self, folder):
        below = f"{folder}/" if folder else ""
        inside = [name.removeprefix(below) for name in self.files if name.startswith(below)]
        folders = {name.partition("/")[0] for name in inside if "/" in name}
        return [
            *self._described(below + name for name in inside if "/" not in name),
            *({"type": "directory", "path": below + name, "oid": COMMIT} for name in folders),
        ]

    def _described(self, names):
        return [
            {"type": "file", "path": name, "size": len(self.files[name]), "oid": _hash(name)}
            for name in names
        ]

    def _file(self, name):
        if name not in self.files:
            self._answer({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        self._send(self.files[name], 200, {"ETag": f'"{_hash(name)}"', "X-Repo-Commit": COMMIT})

    def _answer(self, value, code=200, headers=None):
        self._send(json.dumps(value).encode(), code, headers or {})

    def _send(self, body, code, headers):
        self.send_response(code)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _hash(name):
    return hashlib.sha1(HubHandler.files[name]).hexdigest()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Serve GSM8K's two configurations and have child processes ask there."""
    files, configs = {}, []
    for configuration, rows in (("main", 3), ("socratic", 2)):
        questions = [f"What is {n} + {n}, {configuration}?" for n in range(rows)]
        answers = [f"{n} + {n} = <<{n}+{n}={2 * n}>>{2 * n}\n#### {2 * n}" for n in range(rows)]
        table = pyarrow.table({"question": questions, "answer": answers})
        parquet.write_table(table, tmp_path / "rows.parquet")
        name = f"{configuration}/test-00000-of-00001.parquet"
        files[name] = (tmp_path / "rows.parquet").read_bytes()
        split = {"split": "test", "path": f"{configuration}/test-*"}
        configs.append({"config_name": configuration, "data_files": [split]})
    # JSON is YAML too.
    files["README.md"] = f"---\n{json.dumps({'configs': configs})}\n---\n".encode()
    HubHandler.files = files
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("hub")
def test_configuration_split_and_revision_and_then_without_a_network(monkeypatch):
    places = [f"hub:{NAME}:socratic", f"hub:{NAME}:main:test", f"hub:{NAME}:main:test@{COMMIT}"]
    asked = run_script("-c", READ, *places)
    assert asked.stdout.splitlines() == [
        "2 What is 0 + 0, socratic?",
        "3 What is 0 + 0, main?",
        "3 What is 0 + 0, main?",
    ], asked.stderr
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = run_script("-c", ASKED_AS_A_BENCHMARK)
    assert offline.stdout.splitlines()[-1] == "['0', '2', '4']", offline.stderr


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("place", "says"),
    [
        (f"hub:{NAME}:man", "man"),
        (f"hub:{NAME}:main:validation", "validation"),
        ("hub:openai/gsm9k:main", "gsm9k"),
        (f"hub:{NAME}:main:test@v9", "v9"),
    ],
)
def test_what_the_hub_does_not_have_is_told_with_what_to_do(place, says):
    last = run_script("-c", READ, place).stderr.splitlines()[-1]
    assert "DataError" in last
    assert says in last
    assert "a set is named hub:NAME[:CONFIGURATION[:SPLIT]][@REVISION]" in last
