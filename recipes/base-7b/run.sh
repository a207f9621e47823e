#!/usr/bin/env bash
# Spirit LM Base from Llama-2 7B: units, tokenizer, shards, times of words, pre-training, a voice.
#
#   SPEECH=corpus SPOKEN=corpus TEXT=file ... recipes/base-7b/run.sh
#
# README.md says what each variable is. Relative paths count from the top of the repository.
LLAMA=${LLAMA:-checkpoints/Llama-2-7b-hf}
CLEAN=${CLEAN:-data/clean}
VOICES=${VOICES:-data/expresso/train.jsonl}
LAUNCH=${LAUNCH:-every-gpu}
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
need LLAMA HUBERT ALIGNER CLEAN SPEECH SPOKEN TEXT HELDOUT HELDOUT_TEXT VOICES

fit units $here/units.toml corpus="$CLEAN" hubert="$HUBERT" out="$WORK/units"
fit robust $here/robust.toml corpus="$CLEAN" units="$WORK/units" out="$WORK/robust"
fit tokenizer $here/tokenizer.toml hubert="$WORK/robust" units="$WORK/robust" text="$LLAMA" \
  check="$HELDOUT" out="$WORK/tokenizer"
shards base speech="$SPEECH" spoken="$SPOKEN" heldout="$HELDOUT" voices="$VOICES"
words spoken heldout
learn "$LLAMA" speech spoken
voice $here/vocoder.toml
