"""The study in a real PostgreSQL server that goes away in the middle; skipped where none is."""

from __future__ import annotations

import glob
import importlib.util
import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from src.config.loading import ConfigError
from src.run.files import append_jsonl, read_jsonl
from src.run.network import free_port
from src.search.patience import Patience
from tests.unit.search.test_study import nothing, objective, open_queue, wait_until

TOOLS = shutil.which("pg_ctl") or next(iter(glob.glob("/usr/lib/postgresql/*/bin/pg_ctl")), None)
needs_server = pytest.mark.skipif(
    TOOLS is None or importlib.util.find_spec("psycopg") is None,
    reason="no PostgreSQL server here, or not its driver (requirements/postgresql.txt)",
)


class Server:
    """A server of its own on loopback, run by the user postgres where this one is root."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        self.user = self.user if os.getuid() == 0 else []
        if self.user:
            shutil.chown(folder, "postgres")
        self.run("initdb", "-D", folder / "data", "-U", "study", "--auth=trust")
        self.start()
        self.url = f"postgresql://study@127.0.0.1:{self.port}/postgres"

    def run(self, tool: str, *arguments: object) -> None:
        command = [*self.user, str(Path(TOOLS).with_name(tool)), *map(str, arguments)]
        quiet = subprocess.DEVNULL
        subprocess.run(command, cwd=self.folder, stdout=quiet, stderr=quiet, check=True)

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder}"
        self.run("pg_ctl", "-D", self.folder / "data", "-o", options, "-w", "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-w", "stop")


@pytest.fixture
def server():
    # Not pytest's folder: its path is too long for a socket, and closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    server = Server(folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


def work_in_a_process(folder: Path, search: dict, victim: bool) -> None:
    """Work on the study, and write down each trial begun and ended; the victim never ends one."""

    def slow(trial):
        value = objective(trial)
        begun = {"pid": os.getpid(), "trial": trial.number}
        append_jsonl(folder / "log.jsonl", [begun | {"event": "begin"}])
        for examples in (512, 1024, 1536):
            time.sleep(0.5)
            trial.report(value, examples)
        while victim:
            (folder / "stuck").touch()
            time.sleep(0.1)
        append_jsonl(folder / "log.jsonl", [begun | {"event": "end"}])
        return value

    open_queue(folder, **search).work(slow, nothing)


@pytest.mark.slow
@needs_server
def test_a_killed_process_and_a_server_that_restarts_lose_and_repeat_nothing(server, tmp_path):
    search = {"trials": 8, "storage": server.url}
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=work_in_a_process, args=(tmp_path, search, number == 0))
        for number in range(3)
    ]
    for process in processes:
        process.start()
    wait_until((tmp_path / "stuck").exists)
    processes[0].kill()
    server.stop()
    time.sleep(1)
    server.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [-signal.SIGKILL, 0, 0]

    queue = open_queue(tmp_path, **search)
    rows = read_jsonl(tmp_path / "log.jsonl")
    [lost] = [row["trial"] for row in rows if row["pid"] == processes[0].pid]
    assert [trial.number for trial in queue.interrupted()] == [lost]
    assert len(queue.trials("COMPLETE")) == 8
    assert queue.failed() == {}
    begun = sorted(row["trial"] for row in rows if row["event"] == "begin")
    ended = sorted(row["trial"] for row in rows if row["event"] == "end")
    assert begun == list(range(9))
    assert ended == [number for number in begun if number != lost]


@needs_server
def test_a_server_that_is_away_at_the_start_is_named_with_a_remedy(tmp_path):
    url = f"postgresql://study@127.0.0.1:{free_port()}/postgres"
    with pytest.raises(ConfigError, match=r"start the database(.|\n)*Connection refused"):
        open_queue(tmp_path, storage=url)


class LostError(Exception):
    """What storing the end of a trial a second time raises."""


def away(times: int, then: Exception | None = None):
    """Return a call that fails as where the server is away, and then answers or raises."""
    from sqlalchemy.exc import OperationalError

    left = iter([OperationalError("select", {}, Exception("closed"))] * times)

    def call():
        for error in left:
            raise error
        if then:
            raise then
        return "answer"

    return call


def test_what_was_asked_of_a_server_that_was_away_is_asked_again(monkeypatch):
    monkeypatch.setattr("src.search.patience._PAUSE_S", 0.0)
    patience = Patience("postgresql://host/db", LostError)
    assert patience.over(away(3))() == "answer"
    assert not patience.heartbeats_count(60)
    # The first attempt had been stored, and its answer lost.
    assert patience.over(away(1, then=LostError()))() is True
    with pytest.raises(LostError):
        patience.over(away(0, then=LostError()))()
    with pytest.raises(ConfigError, match="has not answered for 0 s; start the database"):
        Patience("postgresql://host/db", LostError, wait_s=0.0).over(away(9999))()
