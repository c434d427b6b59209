#!/usr/bin/env bash
# Predicted networks, measured: 24 verifications, of four networks all dense, in 4x1 blocks at 90 % and mixed, batch 1
# and 16.
#   bash .ci/verify_networks.sh RESULTS [DEVICE] [TIMES] [MINUTES] [TOGETHER]
# Records go into RESULTS, what was told into RESULTS/verified. A machine's state lasts minutes, so that one
# verification is one draw: TIMES (default 1) says how many each network should have, all 24 once before any again. What
# is there is not made anew: where an earlier call stopped this one goes on, and with more TIMES it adds to it. After
# MINUTES (default or 0: no limit) nothing new is started. TOGETHER (default 1) are under way at once and take turns on the
# device (sparsebench/lab/turns.py), so that each sees more of its states; each holds 1 to 5 GiB. NETWORKS in the
# environment names some of the four. Says at the end which failed, and exits 1 if any did. Runs in the Python of $PYTHON
# (default python3), in which sparsebench is installed.
set -uo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}" results="${1:?where should the records go?}"
device="${2:-cpu}" times="${3:-1}" minutes="${4:-0}" together="${5:-1}"
late=0 start=$SECONDS
sparsebench() { "$python" -c "from sparsebench.cli import main; main()" "$@"; }

verify() { # NETWORK BATCH PLAN TIME
  local told="$results/verified/$1-$2-$3-$4.json"
  [ ! -s "$told" ] || return 0
  [ "$minutes" = 0 ] || [ $(((SECONDS - start) / 60)) -lt "$minutes" ] || { late=$((late + 1)); return 0; }
  while [ "$(jobs -rp | wc -l)" -ge "$together" ]; do wait -n; done
  verify_now "$@" "$told" &
}

verify_now() { # NETWORK BATCH PLAN TIME FILE
  local told="$5" asked
  case "$3" in
    dense) asked=() ;;
    block) asked=(--pattern block:4x1 --sparsity 0.9) ;; # what suite plans times, on linear and on conv2d
    mixed) asked=(--plan "$1-mixed") ;;
  esac
  echo "verify $1, batch $2, $3, time $4"
  if sparsebench verify "$1" "${asked[@]}" --batch "$2" --device "$device" --results "$results" \
    ${model:+--model "$model"} --json >"$told.part" 2>"$told.log"; then
    mv "$told.part" "$told"
  else
    echo "$1, batch $2, $3: $(tail -1 "$told.log")" >>"$failed"
  fi
}

mkdir -p "$results/verified"
failed="$results/verified/failed.txt" && rm -f "$failed"
machine=$("$python" -c "from sparsebench import Machine; print(Machine.here('$device').id)") || exit 2
sparsebench fit --results "$results" --machine "$machine" 2>&1 | tail -3 # once for all 24, which choose kernels by it
model="$results/$machine/irf.json"
[ -f "$model" ] || model=""
for time in $(seq "$times"); do
  for batch in 1 16; do
    for network in ${NETWORKS:-vit-b16 bert-base resnet50-v2 vgg19-cifar}; do
      for plan in dense block mixed; do
        verify "$network" "$batch" "$plan" "$time"
      done
    done
  done
done
wait
[ "$late" = 0 ] || echo "$late of $((24 * times)) not started, run again to go on"
[ ! -s "$failed" ] || { sed 's/^/failed: /' "$failed"; exit 1; }
