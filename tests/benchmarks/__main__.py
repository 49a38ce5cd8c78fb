"""Run all benchmarks one after another, each in a process of its own, and write one table.

    make bench ROWS=math_train.jsonl.gz                                 # 45 minutes on 2 idle cores
    python -m tests.benchmarks --quick

Writes results/benchmarks.json, and results/scaling.png beside it; with --quick
results/benchmarks_quick.json. What has been measured stays when a later benchmark fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory

from src.config.loading import ROOT
from src.run.provenance import code_version, hardware
from tests.benchmarks.table import Row, parser, print_rows, read_rows, write_rows

BENCHMARKS = (
    "sft_speed",
    "chunked_loss",
    "swap_latency",
    "study_time",
    "eval_throughput",
    "overlap_cost",
    "scaling",
    "grpo_step",
    "grader_rate",
    "near_duplicates",
    "gpu_sft",
)
# Threads of two processes that wait for one another on the same cores slow down many times over.
IDLE_LOAD = 0.5


def main() -> int:
    given = parser(__doc__).parse_args()
    name = "benchmarks_quick.json" if given.quick else "benchmarks.json"
    output = given.output or ROOT / "results" / name
    load = os.getloadavg()[0]
    machine = f"{hardware()}, load {load:.1f} at the start"
    if load > IDLE_LOAD:
        print(f"this machine is not idle (load {load:.1f}), so the ratios will be off")
    version = code_version()
    commit = version["commit"] + ("-dirty" if version["dirty"] else "")
    rows: list[Row] = []
    failed = []
    for benchmark in BENCHMARKS:
        found = measured(benchmark, given, output)
        failed += [] if found else [benchmark]
        rows += found or [Row(benchmark, "", None, "", "failed: its messages stand above")]
        write_rows(rows, output, machine=machine, commit=commit)
    print_rows(rows)
    print(f"\nwritten to {output}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def measured(benchmark: str, given: Namespace, output: Path) -> list[Row]:
    """Run one benchmark; return its rows, none if it failed."""
    started = time.perf_counter()
    print(f"\n{benchmark}", flush=True)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        command = [sys.executable, "-m", f"tests.benchmarks.{benchmark}", "--output", str(file)]
        command += ["--quick"] if given.quick else []
        command += ["--rows", str(given.rows.resolve())] if given.rows else []
        if benchmark == "scaling" and not given.quick:
            command += ["--figure", str(output.with_name("scaling.png"))]
        done = subprocess.run(command, cwd=ROOT, check=False)
        print(f"{benchmark}: {time.perf_counter() - started:.0f} s", flush=True)
        return read_rows(file) if done.returncode == 0 else []


if __name__ == "__main__":
    sys.exit(main())
