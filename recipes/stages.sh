# What the run.sh of the recipes share, which source it. Every verb goes on where it was stopped and
# does nothing where it is done: a run.sh that is called again does what is left.
set -euo pipefail
here=recipes/$(basename "$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3)}
WORKERS=${WORKERS:-4} DEVICE=${DEVICE:-auto}
export TOKENIZERS_PARALLELISM=false

# Where everything lies, unless the environment says otherwise, or a recipe before it sources this.
WORK=${WORK:-work/${here#recipes/}}
HUBERT=${HUBERT:-checkpoints/mhubert-base-25hz}
ALIGNER=${ALIGNER:-checkpoints/mms-300m-1130-forced-aligner}
SPEECH=${SPEECH:-data/speech}
SPOKEN=${SPOKEN:-data/spoken}
TEXT=${TEXT:-data/text.jsonl}
HELDOUT=${HELDOUT:-data/heldout}
HELDOUT_TEXT=${HELDOUT_TEXT:-data/heldout.txt}
VOICES=${VOICES:-data/voices/train.jsonl}
LAUNCH=${LAUNCH:-"$python -m"}
[[ $LAUNCH != every-gpu ]] ||
  LAUNCH="$python -m torch.distributed.run --standalone --nproc-per-node gpu -m"

say() { printf '%s\n' "$*" >&2; }

# need NAME...   stops unless what these variables name is there.
need() {
  local name
  for name; do
    [[ -e ${!name} ]] && continue
    say "$0: $name=${!name} is not there; README.md beside run.sh says what belongs into it"
    exit 1
  done
}

# spirit VERB...
spirit() {
  say "== spirit $*"
  "$python" -m spirit "$@"
}

# with KEY=VALUE...   the same as options, in `options`.
with() {
  local change
  options=()
  for change; do options+=(--set "$change"); done
}

# whole FOLDER   stops where the training in it was asked to stop: it has saved and ended well, but it
# is not done.
whole() {
  [[ -d $1/state && ! -f $1/state/finished.json ]] || return 0
  say "$0: the training in $1 was stopped; the same command goes on"
  exit 143
}

# fit VERB RECIPE KEY=VALUE...
fit() {
  local verb=$1 recipe=$2 options change
  shift 2
  with "$@"
  spirit fit "$verb" "$recipe" "${options[@]}"
  for change; do
    [[ $change != out=* ]] || whole "${change#out=}"
  done
}

# shards VARIANT NAME=CORPUS...   each corpus as units, in $WORK/shards-NAME.
shards() {
  local variant=$1 pair
  shift
  for pair; do
    spirit tokenize "${pair#*=}" --tokenizer "$WORK/tokenizer" --variant "$variant" \
      --out "$WORK/shards-${pair%%=*}" --workers "$WORKERS" --device "$DEVICE"
  done
}

# words NAME...   the times of words into $WORK/shards-NAME, by the CTC model in $ALIGNER. MIN_SCORE
# is the least score that each word must have; 0 keeps everything, as the paper does.
words() {
  local name
  for name; do
    spirit align "$WORK/shards-$name" --aligner ctc --model "$ALIGNER" --device "$DEVICE" \
      ${MIN_SCORE:+--min-score "$MIN_SCORE"}
  done
}

# pretrain RECIPE KEY=VALUE...   LAUNCH are the words before `spirit`: torchrun or deepspeed with
# their options; LAUNCH=none stops here, to train elsewhere (recipes/slurm).
pretrain() {
  local recipe=$1 options
  shift
  with "$@"
  if [[ $LAUNCH == none ]]; then
    say "next: spirit train $recipe ${options[*]}"
    say "then the same run.sh again"
    [[ -f $WORK/lm/model/config.json ]] || exit 0
    return 0
  fi
  say "== $LAUNCH spirit train $recipe ${options[*]}"
  $LAUNCH spirit train "$recipe" "${options[@]}"
  whole "$WORK/lm"
}

# learn INIT NAME...   pre-training of $here/train.toml from the text model INIT, on $TEXT and the
# shards of these names.
learn() {
  local init=$1 name shards=
  shift
  for name; do shards+="${shards:+, }\"$WORK/shards-$name\""; done
  pretrain "$here/train.toml" tokenizer="$WORK/tokenizer" init="$init" out="$WORK/lm" \
    mixture.shards="[$shards]" mixture.texts="[\"$TEXT\"]" \
    heldout="[\"$WORK/shards-heldout\"]" retention.texts="[\"$HELDOUT_TEXT\"]"
}

# voice RECIPE   a vocoder from $WORK/shards-voices, put into the model's folder.
voice() {
  local root=$VOICES
  [[ -d $root ]] || root=$(dirname "$root")
  fit vocoder "$1" units="$WORK/shards-voices" audio="$root" out="$WORK/vocoder"
  put "$WORK/vocoder/vocoder" "$WORK/lm/model/vocoder"
  say "done: spirit generate --model $WORK/lm/model --prompt-text '...' --want speech --out reply.wav"
}

# put FOLDER PLACE   a copy that appears whole, once.
put() {
  [[ -d $2 && ! $1 -nt $2/.from ]] && return
  rm -rf "$2.partial" "$2"
  cp -r "$1" "$2.partial"
  touch -r "$1" "$2.partial/.from" # a folder that is made anew is newer
  mv "$2.partial" "$2"
}
