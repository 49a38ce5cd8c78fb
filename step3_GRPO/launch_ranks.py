"""Run torch's or accelerate's launcher for `launch_trl.sh`, with two things mended.

    python step3_GRPO/launch_ranks.py torch.distributed.run --nnodes 1 ... train_trl.py

Its store, where the processes meet, listens on the address it is reached at alone: torch's would
listen on every address of the machine. A launch that a signal or a failed process ended leaves an
exit code, not a traceback of the launcher's: the processes have said what there is to say.
"""

from __future__ import annotations

import logging
import runpy
import signal
import socket
import sys
from datetime import timedelta
from typing import Any

from torch.distributed import TCPStore
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import static_tcp_rendezvous


def main(arguments: list[str]) -> int:
    """Run the launcher named first with the arguments that follow; return the exit code."""
    logging.disable(logging.ERROR)  # the launcher's; its processes have their own
    launcher, sys.argv[1:] = arguments[0], arguments[1:]
    static_tcp_rendezvous.TCPStore = store_at_one_address  # type: ignore[misc, assignment]
    try:
        runpy.run_module(launcher, run_name="__main__", alter_sys=True)
    except SignalException as end:
        return 128 + end.sigval
    except ChildFailedError as failure:
        rank, first = failure.get_first_failure()
        if first.exitcode > 0:
            return first.exitcode
        name = signal.Signals(-first.exitcode).name
        sys.stderr.write(f"launch_trl.sh: process {rank} of this run was killed by {name}\n")
        return 128 - first.exitcode
    return 0


def store_at_one_address(
    host: str, port: int, processes: int, is_master: bool, timeout: timedelta, **more: Any
) -> TCPStore:
    """Open torch's store; its server listens on `host` and on no other address."""
    if is_master:
        listening = socket.create_server((host, port), backlog=2048)
        more["master_listen_fd"] = listening.detach()
    return TCPStore(host, port, processes, is_master, timeout, **more)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
