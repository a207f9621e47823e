#!/usr/bin/env bash
# A Base model of 0.36 billion weights, from SmolLM2, on one GPU in one day.
#
#   SPEECH=corpus SPOKEN=corpus TEXT=file ... recipes/single-gpu/run.sh
#
# README.md says what each variable is. Relative paths count from the top of the repository.
INIT=${INIT:-checkpoints/SmolLM2-360M}
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
need INIT HUBERT ALIGNER SPEECH SPOKEN TEXT HELDOUT HELDOUT_TEXT VOICES

fit units $here/units.toml corpus="$SPOKEN" hubert="$HUBERT" out="$WORK/units"
fit tokenizer $here/tokenizer.toml hubert="$WORK/units" units="$WORK/units" text="$INIT" \
  check="$HELDOUT" out="$WORK/tokenizer"
shards base speech="$SPEECH" spoken="$SPOKEN" heldout="$HELDOUT" voices="$VOICES"
words spoken heldout
learn "$INIT" speech spoken
voice $here/vocoder.toml
