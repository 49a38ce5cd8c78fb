#!/usr/bin/env bash
# Launch step 3 on one or several processes, on one or several machines.
#
#   launch_trl.sh [PROCESSES] [options] [arguments of train_trl.py]
#
#   ./launch_trl.sh                          one process
#   ./launch_trl.sh 2                        two GPUs, or two processes on a CPU
#   ./launch_trl.sh 8 --nodes 2 --node-rank 0 --main 10.0.0.1:29500     on the first machine
#   ./launch_trl.sh 8 --nodes 2 --node-rank 1 --main 10.0.0.1:29500     on the second
#   ./launch_trl.sh 1 --config config/tiny/grpo_config.yaml --set grpo.steps=5 --resume
#
# PROCESSES       processes on this machine, one a GPU (default 1)
# --nodes N       machines; under Slurm taken from the job, like the two below
# --node-rank R   this machine's number, from 0
# --main H:P      address and free port of machine 0, as the others reach it
# --mode M        colocate (vLLM in each process), split or server (see README.md)
# --strategy S    ddp, fsdp2, zero2 or zero3: config/accelerate/S.yaml (GPUs only)
#
# Completions a step stay the same for any number of processes: gradient accumulation follows.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
python=${PYTHON:-}
if [[ -z $python ]]; then
  if [[ -x $root/.venv/bin/python ]]; then python=$root/.venv/bin/python; else python=python; fi
fi

fail() {
  echo "launch_trl.sh: $1" >&2
  exit 2
}

is_number() { [[ $1 =~ ^[0-9]+$ ]]; }

processes=1
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
  processes=$1
  shift
fi
nodes=${SLURM_NNODES:-1}
node_rank=${SLURM_NODEID:-0}
main=
strategy=ddp
passed=()
while (($# > 0)); do
  case $1 in
  --nodes | --node-rank | --main | --mode | --strategy)
    (($# > 1)) || fail "$1 needs a value"
    case $1 in
    --nodes) nodes=$2 ;;
    --node-rank) node_rank=$2 ;;
    --main) main=$2 ;;
    --mode) passed+=(--set "grpo.mode=$2") ;;
    --strategy) strategy=$2 ;;
    esac
    shift 2
    ;;
  *)
    passed+=("$1")
    shift
    ;;
  esac
done

is_number "$nodes" && ((nodes >= 1)) || fail "--nodes $nodes: expected a number from 1 on"
is_number "$node_rank" && ((node_rank < nodes)) ||
  fail "--node-rank $node_rank: expected a number from 0 to $((nodes - 1)) (--nodes $nodes)"
((processes >= 1)) || fail "the number of processes must be at least 1"
world=$((nodes * processes))

case " ${passed[*]-} " in
*" --help "* | *" -h "* | *" --dry-run "* | *" --check "*)
  WORLD_SIZE=$world LOCAL_WORLD_SIZE=$processes exec "$python" "$here/train_trl.py" \
    ${passed[@]+"${passed[@]}"}
  ;;
esac

shopt -s nullglob
gpus=(/dev/nvidia[0-9]*)
if ((${#gpus[@]} > 0 && processes > ${#gpus[@]})); then
  fail "$processes processes asked for, ${#gpus[@]} GPUs there"
fi
configuration=$root/config/accelerate/$strategy.yaml
[[ -f $configuration ]] || fail "--strategy $strategy: use ddp, fsdp2, zero2 or zero3"
if ((${#gpus[@]} == 0)) && [[ $strategy != ddp ]]; then
  fail "--strategy $strategy needs GPUs; on a CPU use ddp"
fi

# Alone, the process meets nobody: it takes this script's place, and signals reach it directly.
if ((world == 1)); then
  exec "$python" "$here/train_trl.py" ${passed[@]+"${passed[@]}"}
fi

child=
stopped=
stop() { # by a signal, which goes on to all that was started
  stopped=${stopped:-$((128 + $(kill -l "$1")))}
  [[ -z $child ]] || kill -s "$1" -- "-$child" 2>/dev/null || kill "$child" 2>/dev/null || true
}
for name in INT TERM HUP; do
  # shellcheck disable=SC2064
  trap "stop $name" "$name"
done

# A group of its own, so that whatever ends this script ends all of it; where the script is killed
# outright and can do nothing, the kernel tells the child. A shell lets what it starts beside itself
# ignore Ctrl-C, which is undone.
told=()
if command -v setpriv >/dev/null; then told=(setpriv --pdeathsig TERM); fi
run() {
  setsid ${told[@]+"${told[@]}"} env --default-signal=INT,QUIT "$@" &
  child=$!
  status=0
  wait "$child" || status=$?
  while kill -0 "$child" 2>/dev/null; do # a signal ended the wait, not the child
    wait "$child" || status=$?
  done
  kill -KILL -- "-$child" 2>/dev/null || true
  child=
  [[ -z $stopped ]] || exit "$stopped"
}

# Mistakes in configuration, data or model end here, with exit code 2, before processes start.
run WORLD_SIZE="$world" LOCAL_WORLD_SIZE="$processes" \
  "$python" "$here/train_trl.py" --check ${passed[@]+"${passed[@]}"}
((status == 0)) || exit "$status"

# Where the processes meet.
if ((nodes == 1)); then
  host=127.0.0.1
  port=$("$python" "$root/src/run/network.py" free-port)
else
  if [[ -z $main && -n ${SLURM_JOB_NODELIST:-} ]]; then
    main=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):29500
  fi
  [[ $main =~ ^[^:]+:[0-9]+$ ]] || fail "--main: give machine 0's address as host:port"
  host=${main%:*}
  port=${main##*:}
  role=$( ((node_rank == 0)) && echo serve || echo reach)
  # Names the network interface that leads to the other machines.
  interface=$("$python" "$root/src/run/network.py" "$role" "$host" "$port") || exit 2
  export GLOO_SOCKET_IFNAME=$interface NCCL_SOCKET_IFNAME=$interface
fi

if ((${#gpus[@]} == 0)); then
  # accelerate starts a single process where there is no GPU, so torch's launcher is used there.
  cores=$(nproc)
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores / processes > 0 ? cores / processes : 1))}
  launch=(torch.distributed.run --nnodes "$nodes" --node_rank "$node_rank"
    --nproc_per_node "$processes" --master_addr "$host" --master_port "$port")
else
  launch=(accelerate.commands.launch --config_file "$configuration" --num_processes "$world"
    --num_machines "$nodes" --machine_rank "$node_rank"
    --main_process_ip "$host" --main_process_port "$port")
fi

run "$python" "$here/launch_ranks.py" "${launch[@]}" "$here/train_trl.py" \
  ${passed[@]+"${passed[@]}"}
if ((status != 0 && status != 2)); then
  echo "launch_trl.sh: a process of this run has ended (code $status), so all of it was stopped." \
    "Start the same command on every machine again with --resume; it goes on from the last saved" \
    "step (grpo.save_every)." >&2
fi
exit "$status"
