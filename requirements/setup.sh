#!/usr/bin/env bash
# Create .venv with everything the pipeline needs on a CPU; does nothing when it is up to date.
#
#     make setup                      # or: bash requirements/setup.sh
#     PYTHON=/path/to/python make setup
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VENV=.venv STAMP=.venv/setup.stamp LOG=.venv/setup.log
readonly NEEDED_GB=8
readonly TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
readonly PINS=(requirements/torch-cpu.txt requirements/cpu.txt requirements/dev.txt)

main() {
    if is_cuda_environment; then
        say "$VENV holds the CUDA build of vLLM; left as it is"
        return
    fi
    if is_current; then
        return
    fi
    check_platform
    check_disk
    phase "environment" create_environment
    phase "torch for CPU" install_torch
    phase "vLLM, TRL and the other pinned packages (1 to 4 minutes)" install_pins
    phase "this project, editable" install_project
    fingerprint >"$STAMP"
    say "ready in $SECONDS s"
}

say() { printf 'setup: %s\n' "$*"; }

fail() {
    [[ -z ${phase_open:-} ]] || printf 'failed\n' >&2
    printf 'setup: error: %s\n' "$1" >&2
    shift
    (($# == 0)) || printf 'setup: %s\n' "$@" >&2
    exit 1
}

# Run one phase: its name when it starts, the seconds it took when it ends, on one line.
phase() {
    local started=$SECONDS phase_open=yes
    printf 'setup: %s ... ' "$1"
    "$2"
    printf '%d s\n' "$((SECONDS - started))"
}

# An environment made by `uv sync --extra vllm` must not be turned into a CPU one.
is_cuda_environment() { compgen -G "$VENV/lib/python3.*/site-packages/vllm-[0-9]*.dist-info" >/dev/null; }

# What the environment depends on; the folder is part of it, because console scripts name it.
fingerprint() {
    printf '%s\n' "$PWD"
    cat "${PINS[@]}" | cksum
}

is_current() { [[ -f $STAMP ]] && [[ $(<"$STAMP") == "$(fingerprint)" ]] && runs "$VENV/bin/python"; }

check_platform() {
    [[ $(uname -s) == Linux ]] ||
        fail "this is $(uname -s); vLLM's CPU build is for Linux. Use a Linux machine or container."
}

check_disk() {
    local free_gb
    free_gb=$(df -Pk . | awk 'NR == 2 { printf "%d", $4 / 1024 / 1024 }')
    ((free_gb >= NEEDED_GB)) ||
        fail "$free_gb GB free in $PWD; $NEEDED_GB GB are needed. Free some space, or move the project."
}

create_environment() {
    if [[ -f $STAMP && $(head -n 1 "$STAMP") != "$PWD" ]]; then
        rebuild_environment # the folder was moved or copied
    elif ! runs "$VENV/bin/python"; then
        rebuild_environment
    fi
    # uv makes environments without pip.
    "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$VENV/bin/python" -m ensurepip >/dev/null
    : >"$LOG"
}

rebuild_environment() {
    local python
    python=$(find_python)
    "$python" -m venv --clear "$VENV"
}

# Print the first Python 3.11 or 3.12 that really starts: pyenv leaves shims that only fail.
find_python() {
    local candidate
    if [[ -n ${PYTHON:-} ]]; then
        runs "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11 or 3.12 with the venv module."
        printf '%s\n' "$PYTHON"
        return
    fi
    while read -r candidate; do
        if runs "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done < <(type -aP python3.11 python3.12 python3 python)
    fail "no Python 3.11 or 3.12 found (python3 is $(python3 -V 2>&1 || true))." \
        "Install one (Debian and Ubuntu: apt install python3.11-venv; or https://www.python.org)" \
        "and name it: PYTHON=/path/to/python3.11 make setup"
}

runs() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
        >/dev/null 2>&1
}

# As pip is configured (a local folder may hold the file), else from PyTorch's own index.
install_torch() {
    try_pip -r requirements/torch-cpu.txt ||
        try_pip --index-url "$TORCH_CPU_INDEX" -r requirements/torch-cpu.txt ||
        fail_with_log "torch's CPU build was found neither where pip looks nor at $TORCH_CPU_INDEX." \
            "Check the network, or put the wheel of $(grep '^torch' requirements/torch-cpu.txt)" \
            "into a folder and run: PIP_FIND_LINKS=/that/folder make setup"
}

install_pins() {
    try_pip -r requirements/cpu.txt -r requirements/dev.txt ||
        fail_with_log "pip could not install requirements/cpu.txt and requirements/dev.txt."
}

install_project() {
    try_pip --no-build-isolation -e . || fail_with_log "pip could not install the project itself."
}

# --no-deps: the lists are complete, and what they leave out is left out on purpose.
try_pip() { "$VENV/bin/python" -m pip install --no-deps --no-input "$@" >>"$LOG" 2>&1; }

fail_with_log() {
    printf 'failed\n' >&2
    phase_open=
    grep -v '^WARNING' "$LOG" | tail -n 8 >&2 || true
    fail "$@" "pip's output: $LOG"
}

main
