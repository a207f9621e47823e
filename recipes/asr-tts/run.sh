#!/usr/bin/env bash
# Transcription and reading: fine-tunes a finished model, whole or by LoRA.
#
#   MODEL=work/single-gpu/lm/model SHARDS=work/single-gpu/shards-spoken recipes/asr-tts/run.sh
#   LORA=1 MODEL=work/base-7b/lm/model SHARDS=work/base-7b/shards-spoken recipes/asr-tts/run.sh
#
# README.md says what each variable is. Relative paths count from the top of the repository.
[[ ${LORA:-} ]] && recipe=recipes/asr-tts/train-lora.toml from=base-7b
recipe=${recipe:-recipes/asr-tts/train.toml} from=${from:-single-gpu}
WORK=${WORK:-work/asr-tts${LORA:+-lora}}
TOKENIZER=${TOKENIZER:-work/$from/tokenizer}
MODEL=${MODEL:-work/$from/lm/model}
SHARDS=${SHARDS:-work/$from/shards-spoken}
HELDOUT=${HELDOUT:-work/$from/shards-heldout}
source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
need TOKENIZER MODEL SHARDS HELDOUT TEXT HELDOUT_TEXT

pretrain "$recipe" tokenizer="$TOKENIZER" init="$MODEL" out="$WORK/lm" \
  mixture.shards="[\"$SHARDS\"]" mixture.texts="[\"$TEXT\"]" heldout="[\"$HELDOUT\"]" \
  retention.texts="[\"$HELDOUT_TEXT\"]"
# The units are the same, and so is who speaks them.
[[ ! -d $MODEL/vocoder ]] || put "$MODEL/vocoder" "$WORK/lm/model/vocoder"
say "done: spirit generate --model $WORK/lm/model --task transcribe --prompt-audio FILE"
say "      spirit generate --model $WORK/lm/model --task speak --prompt-text '...' --out reply.wav"
