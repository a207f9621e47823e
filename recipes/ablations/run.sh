#!/usr/bin/env bash
# What interleaving, and what pitch and style tokens are for: small models that differ in one thing.
#
#   FROM=recipes/tiny/work recipes/ablations/run.sh
#
# README.md says what each variable is. Relative paths count from the top of the repository.
FROM=${FROM:-recipes/tiny/work}
TOKENIZER=${TOKENIZER:-$FROM/tokenizer}
SHARDS=${SHARDS:-$FROM/shards-train}
HELDOUT=${HELDOUT:-$FROM/shards-heldout}
CORPUS=${CORPUS:-$FROM/corpus}
VOCODER=${VOCODER:-$FROM/vocoder/vocoder}
MODELS="base separate expressive"
JOBS=${JOBS:-1}
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
need TOKENIZER SHARDS HELDOUT CORPUS

# learn NAME TOKENIZER SHARDS HELDOUT KEY=VALUE...   one model, in $WORK/NAME.
learn() {
  local name=$1 tokenizer=$2 shards=$3 heldout=$4 options
  shift 4
  with tokenizer="$tokenizer" mixture.shards="[\"$shards\"]" heldout="[\"$heldout\"]" \
    mixture.texts="[\"$CORPUS/text.txt\"]" out="$WORK/$name" training.device="$DEVICE" \
    ${STEPS:+training.steps="$STEPS"} "$@"
  spirit train $here/train.toml "${options[@]}"
  whole "$WORK/$name"
}

mkdir -p "$WORK"
"$python" $here/base.py tokenizer "$TOKENIZER" "$WORK/tokenizer"
"$python" $here/base.py shards "$SHARDS" "$WORK/shards" --tokenizer "$WORK/tokenizer"
"$python" $here/base.py shards "$HELDOUT" "$WORK/shards-heldout" --tokenizer "$WORK/tokenizer"

base=("$WORK/tokenizer" "$WORK/shards" "$WORK/shards-heldout")
learn base "${base[@]}"
# Of the tokens of interleaved documents three quarters are speech.
learn separate "${base[@]}" mixture.interleaved=0.0 mixture.speech=0.75 mixture.text=0.25
learn expressive "$TOKENIZER" "$SHARDS" "$HELDOUT"

"$python" $here/pairs.py --out "$WORK/pairs" ${PAIRS:+--pairs "$PAIRS"}
for model in $MODELS; do
  for suite in storycloze salmon; do
    spirit eval $suite --model "$WORK/$model/model" --data "$WORK/pairs/$suite" \
      --out "$WORK/report/$model/$suite" --device "$DEVICE" --jobs "$JOBS" >/dev/null
  done
done
if [[ -d $VOCODER ]]; then
  "$python" $here/base.py vocoder "$VOCODER" "$WORK/vocoder"
  for model in $MODELS; do
    voice=$WORK/vocoder
    [[ $model != expressive ]] || voice=$VOCODER
    # A folder beside the model, which stays the one that the suites were asked of.
    put "$WORK/$model/model" "$WORK/$model/voiced"
    put "$voice" "$WORK/$model/voiced/vocoder"
    say "== moods.py $model"
    "$python" $here/moods.py --model "$WORK/$model/voiced" --data "$WORK/pairs/stsp" \
      --corpus "$CORPUS/train.jsonl" --judge "$WORK/judge.json" \
      --out "$WORK/report/$model/stsp" --device "$DEVICE" --jobs "$JOBS"
  done
else
  say "$0: VOCODER=$VOCODER is not there: no answers are spoken, and STSP is left out"
fi
"$python" $here/table.py "$WORK/report"
