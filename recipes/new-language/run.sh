#!/usr/bin/env bash
# Another language: another speech encoder and its units, MMS for the times of words, a text model
# that knows the language.
#
#   LANGUAGE=hin SPOKEN=corpus ... recipes/new-language/run.sh
#
# README.md says what each variable is. Relative paths count from the top of the repository.
LANGUAGE=${LANGUAGE:-hin}
INIT=${INIT:-checkpoints/Qwen2.5-0.5B}
HUBERT=${HUBERT:-checkpoints/mHuBERT-147}
MMS=${MMS:-checkpoints/mms-1b-all}
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
ALIGNER=$WORK/aligner-$LANGUAGE
need INIT HUBERT MMS SPOKEN TEXT HELDOUT HELDOUT_TEXT VOICES

fit units $here/units.toml corpus="$SPOKEN" hubert="$HUBERT" out="$WORK/units"
fit tokenizer $here/tokenizer.toml hubert="$WORK/units" units="$WORK/units" text="$INIT" \
  check="$HELDOUT" out="$WORK/tokenizer"
shards base spoken="$SPOKEN" heldout="$HELDOUT" voices="$VOICES"
[[ -d $ALIGNER ]] || "$python" $here/aligner.py "$MMS" "$LANGUAGE" "$ALIGNER"
words spoken heldout
learn "$INIT" spoken
voice $here/vocoder.toml
