#!/usr/bin/env bash
# Launch step 3 through accelerate.
#
#   ./launch_trl.sh                 one process
#   ./launch_trl.sh 2               two GPUs (or, on a CPU, two processes)
#   ./launch_trl.sh 1 --config config/tiny/grpo_config.yaml --set grpo.steps=5 --resume
#
# Everything after the number goes to train_trl.py.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
python=${PYTHON:-}
if [[ -z $python ]]; then
  if [[ -x $root/.venv/bin/python ]]; then python=$root/.venv/bin/python; else python=python; fi
fi

processes=1
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
  processes=$1
  shift
fi
if ((processes < 1)); then
  echo "launch_trl.sh: the number of processes must be at least 1" >&2
  exit 2
fi

case " $* " in
*" --help "* | *" -h "* | *" --dry-run "* | *" --check "*)
  WORLD_SIZE=$processes exec "$python" "$here/train_trl.py" "$@"
  ;;
esac

# Mistakes in configuration, data or model end here, with exit code 2, before accelerate starts.
"$python" "$here/train_trl.py" --check "$@"

arguments=(--num_processes "$processes" --num_machines 1 --mixed_precision no --dynamo_backend no)
shopt -s nullglob
gpus=(/dev/nvidia[0-9]*)
if ((${#gpus[@]} == 0)); then
  arguments+=(--cpu)
  cores=$(nproc)
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores / processes > 0 ? cores / processes : 1))}
elif ((processes > ${#gpus[@]})); then
  echo "launch_trl.sh: $processes processes asked for, ${#gpus[@]} GPUs there" >&2
  exit 2
elif ((processes > 1)); then
  arguments+=(--multi_gpu)
fi

# Processes of one machine meet on a free local port.
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
arguments+=(--main_process_ip 127.0.0.1 --main_process_port "$port")

exec "$python" -m accelerate.commands.launch "${arguments[@]}" "$here/train_trl.py" "$@"
