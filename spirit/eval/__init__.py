"""What a model can do, measured: an independent ear, prosody, and figures with their intervals."""
