"""Speech and text as one stream of tokens: tokenize, train, generate, speak."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["Document", "Spirit", "Tracks", "Units", "read_audio", "write_audio"]

_HOMES = {
    "Spirit": "spirit.pipeline",
    "Document": "spirit.codec",
    "Tracks": "spirit.units",
    "Units": "spirit.units",
    "read_audio": "spirit.audio",
    "write_audio": "spirit.audio",
}


def __getattr__(name: str) -> Any:
    """Import public names when they are first used, so that `import spirit` (and `spirit --help`)
    is instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'spirit' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
