"""Units to speech."""

from spirit.vocoder.vocoder import Vocoder

__all__ = ["Vocoder"]
