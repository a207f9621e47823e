"""From recordings to training rows: corpora in, unit shards between, packed batches out."""
