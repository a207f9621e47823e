"""Training of the speech tokenizers, each with its config."""

from spirit.fit.hubert import HubertFitConfig, HubertShape, fit_hubert
from spirit.fit.prosody import PitchConfig, StyleConfig, fit_pitch, fit_style
from spirit.fit.robust import RobustFitConfig, fit_robust
from spirit.fit.tokenizer import TokenizerConfig, fit_tokenizer
from spirit.fit.units import UnitsFitConfig, fit_units

__all__ = [
    "HubertFitConfig",
    "HubertShape",
    "PitchConfig",
    "RobustFitConfig",
    "StyleConfig",
    "TokenizerConfig",
    "UnitsFitConfig",
    "fit_hubert",
    "fit_pitch",
    "fit_robust",
    "fit_style",
    "fit_tokenizer",
    "fit_units",
]
