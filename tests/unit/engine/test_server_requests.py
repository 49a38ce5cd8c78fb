"""A vLLM server that hangs, is gone or is briefly busy: what GRPO's requests do."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from src.engine.server_engine import BoundedServer, ServerRolloutPool
from src.engine.server_requests import ServerError, bound_requests, check_server
from src.run.network import free_port
from tests.conftest import ROOT
from tests.unit.engine.test_server_engine import SAMPLING

HANGS_UP = 0


class Server(ThreadingHTTPServer):
    """Answers a request by the next of `codes`; None hangs until the test is over, 0 hangs up."""

    daemon_threads = True

    def __init__(self, codes: list[int | None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.codes, self.asked, self.over = codes, 0, threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        code = self.server.codes[self.server.asked]
        self.server.asked += 1
        if code is None:
            self.server.over.wait(10)
        if code in (None, HANGS_UP):
            return
        self.send_response(code)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST  # noqa: N815 - the names are the base class's

    def log_message(self, *_: object) -> None:
        pass


class Client:
    """Asks as TRL's client does."""

    def __init__(self, url: str) -> None:
        self.url, self.session = url, requests.Session()

    def generate(self, prompts, **arguments):
        return self._post(self.url, json=prompts)

    def _post(self, url, **arguments):
        return self.session.post(url, **arguments).json()

    def reset_prefix_cache(self):
        self._post(f"{self.url}/reset_prefix_cache")


@pytest.fixture
def serving():
    servers: list[Server] = []

    def start(*codes: int | None) -> Server:
        servers.append(Server([*codes]))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.over.set()
        server.shutdown()
        server.server_close()


def test_a_server_that_hangs_is_given_up_at_the_deadline_and_not_asked_again(serving, tokenizer):
    server = serving(None, None, None)
    bounded = BoundedServer(Client(server.url), server.url, timeout_s=0.2)
    pool = ServerRolloutPool(bounded, tokenizer, SAMPLING, context=64)
    pool.add(0, [7], seed=1)
    with pytest.raises(ServerError) as failure:
        list(pool.ended())
    assert f"{server.url}: no answer for 0.2 s (engine.no_answer_timeout_s)" in str(failure.value)
    assert "--resume" in str(failure.value)
    assert server.asked == 1


def test_a_server_that_is_busy_is_asked_again(serving):
    server = serving(503, 200)
    assert BoundedServer(Client(server.url), server.url, 5).generate([[1]]) == {}
    assert server.asked == 2


@pytest.mark.parametrize("code", [500, HANGS_UP])
def test_weights_are_announced_once(serving, code):
    server = serving(code, 200)
    bound_requests(session := requests.Session(), 5)
    with pytest.raises(requests.exceptions.RequestException, match="status 500|Remote end closed"):
        session.post(f"{server.url}/update_weights", json={})
    assert server.asked == 1


def test_the_server_is_asked_first_whether_it_is_well(serving):
    check_server(serving(200).url, 5)
    with pytest.raises(ServerError, match=r"no answer for 0\.2 s"):
        check_server(serving(None).url, 0.2)
    gone = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ServerError, match=rf"{gone} cannot be reached .*grpo\.server_url"):
        check_server(gone, 5)


@pytest.mark.parametrize("answer", [{"success": True}, {"success": False}, {}])
def test_a_server_that_keeps_its_prefix_cache_is_not_believed(answer):
    client = Client("http://127.0.0.1:1")
    client._post = lambda *_, **__: answer
    bounded = BoundedServer(client, client.url, 5)
    busy = answer.get("success") is False
    with pytest.raises(ServerError, match="is busy") if busy else nullcontext():
        bounded.reset_prefix_cache()


def test_weights_that_the_server_refuses_end_the_process_that_sends_them():
    """NCCL's side of it would wait for ever."""
    script = """
import threading
from concurrent.futures import ThreadPoolExecutor
import requests
from src.engine.server_engine import BoundedServer

class Client:
    session = requests.Session()

    def _post(self, url, **_):
        raise Exception(f"Request failed: 500, out of memory")

    def update_named_params(self, *_):
        with ThreadPoolExecutor(1) as executor:
            executor.submit(self._post, "http://127.0.0.1:1/update_weights")
            threading.Event().wait()  # the broadcast

BoundedServer(Client(), "http://127.0.0.1:1", 5).update_named_params([], iter(()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "the server did not take the weights, so the run ends: Request failed" in done.stderr
