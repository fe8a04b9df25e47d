#!/usr/bin/env bash
# What Cal-QL does on one NVIDIA GPU: speed, several runs on one card, d3rlpy beside it, and the beginning of real runs.
#
#     benchmarks/gpu.sh [SECONDS] [--rehearse] [--out FOLDER] [--scratch FOLDER] [--seeds "0 1"] [--parts "data …"]
#
# Needs: a python3 (or $PYTHON) that imports calql and a JAX that sees the GPU; for the part `peers` also torch and
# d3rlpy; for `mps` NVIDIA's nvidia-cuda-mps-control. Nothing is installed and no setting of the card is changed.
# All parts together take at most SECONDS (default 500). --rehearse runs all of them on the CPU, with toy budgets.
#
# Parts, in this order (each has a time limit; one that fails does not stop the others):
#
#     data      antmaze-large-diverse, built on all cores but two, while `compile` compiles
#     compile   every program that is measured, into JAX's compilation cache
#     speed     update steps/s of one process, in both precisions, and the share of the matrix-multiply peak
#     shared    1 to 16 processes at a time on the card: update steps/s of all together
#     vmap      4, 8 and 16 seeds in one program: the same
#     graphs    one process again, with the whole loop recorded as a CUDA graph
#     peers     d3rlpy's Cal-QL, eager and compiled, in turns with ours
#     mps       `shared` again, under CUDA MPS
#     train     Cal-QL and CQL of antmaze-large-diverse at paper scale, side by side, for the rest of the time
#
# FOLDER of --out (default results/gpu) gets results.jsonl (a line a measurement, written at once), log.txt, and a
# run-METHOD-SEED.tar.gz for every run. Unpacked below SCRATCH/runs, the runs are continued by the next `train`; so are
# those that are still there. Exit code: 0, or 1 if a part failed.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
total=500 rehearse="" out="$here/../results/gpu" scratch="${TMPDIR:-/tmp}/calql-gpu" seeds="0 1"
parts="data compile speed shared vmap graphs peers mps train"
while [ $# -gt 0 ]; do
  case $1 in
    --rehearse) rehearse=--rehearse ;;
    --out) out=$2; shift ;;
    --scratch) scratch=$2; shift ;;
    --seeds) seeds=$2; shift ;;
    --parts) parts=$2; shift ;;
    [0-9]*) total=$1 ;;
    *) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; exit 2 ;;
  esac
  shift
done
python=${PYTHON:-python3}
mkdir -p "$out" "$scratch"
out=$(cd "$out" && pwd) scratch=$(cd "$scratch" && pwd)
export PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore MPLBACKEND=Agg
export MINARI_DATASETS_PATH="$scratch/minari" XDG_CACHE_HOME="$scratch/cache" TORCHINDUCTOR_CACHE_DIR="$scratch/torch"
programs="$scratch/jax"
[ -z "$rehearse" ] || programs=${JAX_COMPILATION_CACHE_DIR:-$programs} # whose compile times do not matter
export JAX_COMPILATION_CACHE_DIR="$programs" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
export XLA_PYTHON_CLIENT_PREALLOCATE=false TF_CPP_MIN_LOG_LEVEL=2
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
if [ -n "$rehearse" ]; then export JAX_PLATFORMS=cpu; seeds=${seeds%% *}; fi
log="$out/log.txt" failed=""
: >"$log"

left() { echo $((total - SECONDS)); }
wanted() { [[ " info $parts " == *" $1 "* ]]; }
say() { printf '%4d s  %s\n' "$SECONDS" "$*" | tee -a "$log"; }

# part NAME LEAST LIMIT KEEP: run it for at most LIMIT seconds, so that KEEP are left for the parts after it; not at all
# if that gives it less than LEAST.
part() {
  local name=$1 least=$2 limit=$3 room=$(($(left) - $4)) code
  wanted "$name" || return 0
  [ -z "$rehearse" ] || limit=$((3 * limit)) # two busy cores may have to do what sixteen do
  [ "$limit" -lt "$room" ] || limit=$room
  if [ "$limit" -lt "$least" ]; then say "$name: left out, too little time is left"; return 0; fi
  say "$name: at most $limit s"
  echo "== $name" >>"$log"
  timeout --kill-after=10 "$limit" "$python" "$here/gpu.py" "$name" $rehearse --seconds $((limit - 5)) \
    --out "$out" --scratch "$scratch" --seeds $seeds >>"$log" 2>&1
  code=$?
  [ $code -eq 0 ] || complain "$name" $code
}

complain() {
  failed="$failed $1"
  say "$1: FAILED (exit code $2$([ "$2" -ne 124 ] || echo ', its time was over')); the end of its log:"
  tail -n 4 "$log" | cut -c 1-400 | sed 's/^/          /'
}

nvidia-smi 2>&1 | tee -a "$log" | sed -n '1,16p'
part info 5 60 0
if [[ "$failed" == *info* ]]; then exit 1; fi

all=$(getconf _NPROCESSORS_ONLN) # nproc would heed OMP_NUM_THREADS
cores=$((all > 3 ? all - 2 : 1))
build() { # on the CPU
  timeout --kill-after=5 $(($(left) < 150 ? $(left) : 150)) env JAX_PLATFORMS=cpu nice -n 5 "$python" "$here/gpu.py" \
    data $rehearse --workers "$cores" --out "$out" --scratch "$scratch" >"$scratch/data.log" 2>&1
}
if wanted data; then # nothing is timed before it is over
  say "data: in the background on $cores cores"
  build &
  builder=$!
fi
wanted train && reserve=150 || reserve=10
[ -z "$rehearse" ] || reserve=40
part compile 30 130 $reserve
if wanted data; then
  wait "$builder"
  code=$?
  cat "$scratch/data.log" >>"$log"
  [ $code -eq 0 ] && say "data: done" || complain data $code
fi
part speed 20 75 $reserve
part shared 40 90 $reserve
part vmap 15 50 $reserve
part graphs 25 60 $reserve
part peers 60 110 $reserve
part mps 35 70 $reserve
wanted train && [ ! -d "$MINARI_DATASETS_PATH/calql/antmaze-large-diverse-v0" ] && build
part train 30 600 10
say "done"

"$python" "$here/gpu.py" table --out "$out" | tee -a "$log"
cat "$out/results.jsonl" >>"$scratch/earlier.jsonl"
ls -l "$out"
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
