"""Speech into units: HuBERT and its quantizer, pitch, style."""
