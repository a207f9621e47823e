#!/usr/bin/env bash
# Spirit LM Expressive from Llama-2 7B: Base, with tokens for pitch and style.
#
#   SPEECH=corpus SPOKEN=corpus TEXT=file ... recipes/expressive-7b/run.sh
#
# README.md says what each variable is. Relative paths count from the top of the repository.
LLAMA=${LLAMA:-checkpoints/Llama-2-7b-hf}
CLEAN=${CLEAN:-data/clean}
VOICES=${VOICES:-data/expresso/train.jsonl}
VOICES_HELDOUT=${VOICES_HELDOUT:-data/expresso/heldout.jsonl}
LAUNCH=${LAUNCH:-every-gpu}
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
need LLAMA HUBERT ALIGNER CLEAN SPEECH SPOKEN TEXT HELDOUT HELDOUT_TEXT VOICES \
  VOICES_HELDOUT

fit units recipes/base-7b/units.toml corpus="$CLEAN" hubert="$HUBERT" out="$WORK/units"
fit robust recipes/base-7b/robust.toml corpus="$CLEAN" units="$WORK/units" out="$WORK/robust"
fit pitch $here/pitch.toml corpus="$VOICES" heldout="$VOICES_HELDOUT" out="$WORK/pitch"
fit style $here/style.toml corpus="$VOICES" heldout="$VOICES_HELDOUT" \
  hubert="$WORK/robust" pitch="$WORK/pitch" out="$WORK/style"
fit tokenizer $here/tokenizer.toml hubert="$WORK/robust" units="$WORK/robust" \
  pitch="$WORK/pitch" style="$WORK/style" text="$LLAMA" check="$HELDOUT" out="$WORK/tokenizer"
shards expressive speech="$SPEECH" spoken="$SPOKEN" heldout="$HELDOUT" voices="$VOICES"
words spoken heldout
learn "$LLAMA" speech spoken
voice $here/vocoder.toml
