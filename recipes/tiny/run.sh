#!/usr/bin/env bash
# Everything in the bundle from nothing: corpus, tokenizers, language model, vocoder, figures, card.
#
#   PRESET=quick|full|best DEVICE=cpu|cuda SMOKE=1 WORK=folder OUT=folder recipes/tiny/run.sh
#
# Stopped by Ctrl-C or kill, it goes on where it was when it is called again. A stage is done afresh
# when its command, its recipe or a stage before it has changed. SMOKE=1 does a few steps of every
# stage in a temporary folder. Relative folders count from the top of the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=recipes/tiny
say() { printf '%s\n' "$*" >&2; }
die() { say "run.sh: $*"; exit 1; }

# ---------------------------------------------------------------------------------- how stages run

declare -A pids=() began=() keys=()

# stage NAME "STAGES BEFORE" "FILES IT READS" COMMAND...   starts a stage that is not done yet. What
# it makes lies in $WORK/NAME. Its key covers all that the result depends on, so not the number of
# cores or where Python lies.
stage() {
  local name=$1 mark=$WORK/stages/$1 before=$2 reads=$3 item
  shift 3
  keys[$name]=$({
    printf '%s\n' "$*" | sed -E "s#(--workers|--jobs) [0-9]+|OMP_NUM_THREADS=[0-9]+##g; s#$python##g"
    for item in $before; do echo "${keys[$item]}"; done
    for item in $reads; do cat "$item"; done
  } | sha256sum | cut -c1-16)
  if [[ -f $mark.key && $(<"$mark.key") != "${keys[$name]}" ]]; then
    say "-- $name: made by another recipe, doing it afresh"
    rm -rf "${WORK:?}/$name" "$mark".*
  fi
  if [[ -f $mark.done ]]; then
    say "-- $name: done before"
    return
  fi
  echo "${keys[$name]}" >"$mark.key"
  say "== $name: $*"
  # A session of its own: signals reach a stage through this script alone, and when this script is
  # killed outright the stage is asked to end.
  setsid setpriv --pdeathsig TERM "$@" </dev/null >"$mark.out" 2>"$WORK/log/$name.log" &
  pids[$name]=$! began[$name]=$EPOCHSECONDS
}

# await NAME...   waits for these stages while all that were started go on; any that fails stops all.
await() {
  local name left=1
  while [[ $left ]]; do
    left=
    for name in "${!pids[@]}"; do
      if kill -0 "${pids[$name]}" 2>/dev/null; then
        [[ " $* " != *" $name "* ]] || left=1
      else
        settle "$name"
      fi
    done
    show
    [[ -z $left ]] || { sleep 1 & wait $! || true; }
  done
}

settle() { # takes note of a stage that has ended
  local name=$1 mark=$WORK/stages/$1 status=0
  wait "${pids[$name]}" || status=$?
  spend "$name"
  [[ ! -t 2 ]] || printf '\r\033[K' >&2
  # A training that somebody else asked to stop has saved and ended well, but it is not done.
  if ((!status)) && [[ -d $WORK/$name/state && ! -f $WORK/$name/state/finished.json ]]; then
    status=143
  fi
  if ((status)); then
    tail -n 3 "$WORK/log/$name.log" | tr '\r' '\n' | tail -n 8 >&2
    stop
    die "stage $name failed with status $status, see $WORK/log/$name.log; called again, it goes on"
  fi
  touch "$mark.done"
  say "== $name: done, $(awk '{ s += $2 - $1 } END { print s }' "$mark.times") s"
  cat "$mark.out"
}

spend() { # a stage may take several runs
  echo "${began[$1]} $EPOCHSECONDS" >>"$WORK/stages/$1.times"
  unset "pids[$1]"
}

show() { # the last line of each running stage: in place on a terminal, else once in a while
  local name line=
  [[ -t 2 ]] || ((SECONDS >= shown + 60)) || return 0
  shown=$SECONDS
  for name in "${!pids[@]}"; do
    line+="$name $(tail -c 400 "$WORK/log/$name.log" | tr '\r' '\n' | grep -a . | tail -n 1)  " || true
  done
  if [[ -t 2 ]]; then
    printf '\r\033[K%s' "${line:0:$(($(tput cols 2>/dev/null || echo 80) - 1))}" >&2
  elif [[ $line ]]; then
    say "$line"
  fi
}
shown=0

stop() { # asks all stages to save and end, and insists after a minute
  local name until=$((SECONDS + 60))
  for name in "${!pids[@]}"; do kill -TERM "${pids[$name]}" 2>/dev/null || true; done
  for name in "${!pids[@]}"; do
    while kill -0 "${pids[$name]}" 2>/dev/null && ((SECONDS < until)); do sleep 0.2; done
    kill -KILL -- "-${pids[$name]}" 2>/dev/null || true
    spend "$name"
  done
}

interrupted() {
  trap '' INT TERM HUP
  stop
  [[ ! -t 2 ]] || printf '\n' >&2
  say "stopped; the same command goes on from here"
  exit "$1"
}

# What the preset changes in a stage, each word after PREFIX: `options NAME PREFIX`.
options() {
  local change
  for change in $(sed -n "s/^$1 //p" "$here/$PRESET.sets"); do printf '%s ' $2"$change"; done
}

yield() { # lets a process have only what all others leave
  sleep 0.5
  renice -n 19 "$1" >/dev/null 2>&1 || true
  { echo 19 >"/proc/$1/autogroup"; } 2>/dev/null || true
}

# fit NAME "STAGES BEFORE" THREADS "VERB" RECIPE KEY=VALUE...   a stage that trains something
fit() {
  local name=$1 before=$2 threads=$3 verb=$4 recipe=$here/$5 change sets=()
  shift 5
  for change in "out=$WORK/$name" "$@"; do sets+=(--set "$change"); done
  stage "$name" "$before" "$recipe" env OMP_NUM_THREADS="$threads" "$python" -m spirit \
    $verb "$recipe" "${sets[@]}" $(options "$name" "--set ")
}

# model NAME "STAGES BEFORE" RECIPE SHARDS TEXTS KEY=VALUE...
model() {
  local name=$1 before=$2 recipe=$3 shards=$4 texts=$5
  shift 5
  fit "$name" "$before" "$half" train "$recipe" tokenizer="$WORK/tokenizer" "$@" \
    mixture.shards="[$shards]" mixture.texts="[$texts]" heldout="[\"$WORK/shards-heldout\"]" $on
}

# voice NAME "STAGES BEFORE" RECIPE KEY=VALUE...
voice() {
  local name=$1 before=$2 recipe=$3
  shift 3
  fit "$name" "$before" "$half" "fit vocoder" "$recipe" units="$WORK/shards-train" \
    audio="$WORK/corpus" ears="$WORK/units" "$@" $on
}

# mean NAME "STAGES BEFORE" PART SHARE=STAGE...   of the part `model` or `vocoder` of stages.
mean() {
  local name=$1 before=$2 part=$3 share shares=()
  shift 3
  for share in "$@"; do shares+=("${share%%=*}=$WORK/${share#*=}/$part"); done
  stage "$name" "$before" $here/average.py "$python" $here/average.py "$WORK/$name/$part" \
    "${shares[@]}"
}

# ------------------------------------------------------------------------------------------ stages

main() {
  PRESET=${PRESET:-quick} DEVICE=${DEVICE:-cpu} SMOKE=${SMOKE:-}
  local asked="PRESET=$PRESET DEVICE=$DEVICE $here/run.sh" scratch= cores half package part
  if [[ $SMOKE == 1 ]]; then
    PRESET=smoke
    [[ ${WORK:-} && ${OUT:-} ]] || scratch=$(mktemp -d)
    WORK=${WORK:-$scratch/work} OUT=${OUT:-$scratch/out}
  fi
  WORK=${WORK:-$here/work} OUT=${OUT:-.}
  python=${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3)}
  cores=$(nproc)
  export TQDM_MININTERVAL=1 TOKENIZERS_PARALLELISM=false
  [[ -f $here/$PRESET.sets ]] || die "there is no preset '$PRESET'; say PRESET=quick, full or best"
  [[ $DEVICE == cpu || $DEVICE == cuda ]] || die "DEVICE is cpu or cuda, not '$DEVICE'"
  for package in flite asterisk-core-sounds-en-g722; do
    dpkg-query -W "$package" >/dev/null 2>&1 && continue
    ((EUID == 0)) || die "install $package: sudo apt-get install flite asterisk-core-sounds-en-g722"
    { apt-get update && apt-get install -y --no-install-recommends "$package"; } >&2
  done
  # glibc's malloc slows training down as its memory splinters; LD_PRELOAD= (empty) keeps it.
  if [[ $DEVICE == cpu && ! -v LD_PRELOAD ]] && ldconfig -p | grep -q libjemalloc.so.2; then
    export LD_PRELOAD=libjemalloc.so.2
  fi
  mkdir -p "$WORK/stages" "$WORK/log" "$OUT"
  exec 9>"$WORK/.lock" # the stages hold it too: one that is still saving is waited for
  flock -w 60 9 || die "another run works in $WORK; wait for it or give another WORK"
  trap 'interrupted 130' INT
  trap 'interrupted 143' TERM HUP

  local on=training.device=$DEVICE train=$WORK/corpus/train.jsonl heldout=$WORK/corpus/heldout.jsonl

  stage corpus "" "$(ls $here/*.py $here/prompts.tsv | grep -v -e bundle.py -e average.py)" \
    "$python" $here/corpus.py --out "$WORK/corpus" --workers "$cores" $(options corpus --)
  await corpus

  # Pitch takes what HuBERT's threads leave.
  fit pitch corpus 1 "fit pitch" pitch.toml corpus="$train" heldout="$heldout" $on
  [[ -z ${pids[pitch]:-} ]] || yield "${pids[pitch]}"
  fit hubert1 corpus "$cores" "fit hubert" hubert1.toml corpus="$train" $on
  await hubert1
  fit hubert2 hubert1 "$cores" "fit hubert" hubert2.toml corpus="$train" teacher="$WORK/hubert1" $on
  await hubert2
  fit units hubert2 "$cores" "fit units" units.toml corpus="$train" hubert="$WORK/hubert2" \
    device=$DEVICE
  await units pitch
  fit style "units pitch" "$cores" "fit style" style.toml corpus="$train" \
    heldout="$heldout" hubert="$WORK/units" pitch="$WORK/pitch" $on
  await style
  fit tokenizer style 1 "fit tokenizer" tokenizer.toml hubert="$WORK/units" units="$WORK/units" \
    pitch="$WORK/pitch" style="$WORK/style" texts="[\"$WORK/corpus/text.txt\"]" check="$heldout"
  await tokenizer
  for part in train heldout heard; do
    stage "shards-$part" tokenizer "" "$python" -m spirit tokenize "$WORK/corpus/$part.jsonl" \
      --tokenizer "$WORK/tokenizer" --out "$WORK/shards-$part" --workers "$cores" --device $DEVICE
  done
  await shards-train shards-heldout shards-heard

  # Side by side: two trainings with one thread each use two cores better than one with two.
  half=$(((cores + 1) / 2))
  local shards="\"$WORK/shards-train\"" texts="\"$WORK/corpus/text.txt\"" written
  written="$texts, \"$WORK/corpus/written.txt\""
  voice vocoder1 shards-train vocoder1.toml
  model lm1 "shards-train shards-heldout" lm1.toml "$shards" "$texts"
  await lm1
  model lm2 lm1 lm2.toml "$shards" "$written" init="$WORK/lm1/model"
  await lm2
  shards+=", \"$WORK/shards-heard\""
  model lm3 "lm2 shards-heard" lm3.toml "$shards" "$written" init="$WORK/lm2/model"
  await vocoder1
  voice vocoder2 vocoder1 vocoder.toml init="$WORK/vocoder1/vocoder"
  await vocoder2
  voice vocoder3 vocoder2 vocoder.toml init="$WORK/vocoder2/vocoder"
  await lm3
  mean mean "lm2 lm3" model 0.4=lm2 0.6=lm3
  await mean
  # In parts: means are taken along the way.
  model lm4 "mean shards-heard" lm.toml "$shards" "$written" init="$WORK/mean/model"
  await lm4
  model lm lm4 lm.toml "$shards" "$written" init="$WORK/lm4/model"
  await vocoder3
  voice vocoder4 vocoder3 vocoder.toml init="$WORK/vocoder3/vocoder"
  await lm vocoder4
  mean average "mean lm4 lm" model 0.15=mean 0.4=lm4 0.45=lm
  mean vocoder "vocoder2 vocoder3 vocoder4" vocoder 0.25=vocoder2 0.35=vocoder3 0.4=vocoder4
  await average vocoder

  stage bundle "average vocoder" $here/bundle.py "$python" $here/bundle.py model --work "$WORK"
  await bundle
  stage eval bundle "" env OMP_NUM_THREADS=1 "$python" -m spirit eval tiny \
    --model "$WORK/bundle/checkpoints/tiny" --data "$heldout" --out "$WORK/eval" \
    --language $here/language.py --device $DEVICE --jobs "$cores" $(options eval --)
  await eval
  "$python" $here/bundle.py card --work "$WORK" --preset "$PRESET" --device $DEVICE --asked "$asked"
  "$python" $here/bundle.py deliver --work "$WORK" --out "$OUT"
  say "in $((SECONDS / 60)) min $((SECONDS % 60)) s"
  [[ -z $scratch ]] || rm -rf "$scratch"
}

main "$@"
exit
