"""The language model over text and units: the network, its training, sampling from it."""
