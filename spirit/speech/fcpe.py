"""Hearing pitch as the released Spirit LM does: FCPE, whose weights ship in `torchfcpe`."""

import contextlib
import io
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spirit.speech.f0 import HIGHEST, LOWEST, frame_count
from spirit.units import SAMPLE_RATE

SHORTEST = 1_024
"""Its mel spectrogram reflects half a window at the borders and cannot take fewer samples."""


class Fcpe:
    """F0 by FCPE (Luo et al. 2025) with the release's settings: local argmax, threshold 0.05.

    Its 100 frames a second become 200 by taking the nearest, as in the release. The release's line
    through unvoiced frames is left to the caller, so that silence gives zeros where the release
    raises IndexError. Needs the extra `audio`; about 20 times real time on one CPU core.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        """Raises ValueError if torchfcpe is not installed."""
        try:
            from torchfcpe import spawn_bundled_infer_model
        except ImportError:
            raise ValueError(
                "the F0 extractor fcpe is not installed; get it with pip install '.[audio]'"
            ) from None
        with contextlib.redirect_stdout(io.StringIO()):  # it reports its defaults
            self._model = spawn_bundled_infer_model(device=str(device))
        self.device = torch.device(device)

    @torch.inference_mode()
    def __call__(self, wave: Float[Tensor, " samples"]) -> Float[Tensor, " frames"]:
        """F0 of one wave in Hz, 0 where unvoiced."""
        padded = torch.nn.functional.pad(wave, (0, max(0, SHORTEST - len(wave))))
        f0, unvoiced = self._model.infer(
            padded[None, :, None].to(self.device),
            sr=SAMPLE_RATE,
            decoder_mode="local_argmax",
            threshold=0.05,
            f0_min=LOWEST,
            f0_max=HIGHEST,
            interp_uv=False,
            output_interp_target_length=frame_count(len(padded)),
            retur_uv=True,  # spelled so
        )
        heard: Tensor = (f0 * (1 - unvoiced))[0, : frame_count(len(wave)), 0]
        return heard

    @torch.inference_mode()
    def line(
        self, wave: Float[Tensor, " samples"]
    ) -> tuple[Float[Tensor, " frames"], Bool[Tensor, " frames"]]:
        """F0 of one wave in Hz with the release's line through unvoiced frames, and where it is
        voiced; all zeros where nothing is.

        The line is drawn at FCPE's own 100 frames a second, before the nearest are taken, so that
        the numbers are those of the release to the last bit.
        """
        from torchfcpe.torch_interp import batch_interp_with_replacement_detach

        padded = torch.nn.functional.pad(wave, (0, max(0, SHORTEST - len(wave))))
        f0 = self._model(
            padded[None, :, None].to(self.device),
            sr=SAMPLE_RATE,
            decoder_mode="local_argmax",
            threshold=0.05,
        )[..., 0]
        unvoiced = f0 < LOWEST
        if bool(unvoiced.all()):
            f0 = torch.zeros_like(f0)
        else:
            f0 = batch_interp_with_replacement_detach(unvoiced, f0).clamp(max=HIGHEST)
        both = torch.nn.functional.interpolate(
            torch.stack([f0, (~unvoiced).to(f0.dtype)], 1), size=frame_count(len(padded))
        )[0, :, : frame_count(len(wave))]
        return both[0], both[1] > 0

    def batch(self, waves: Sequence[Float[Tensor, " _"]]) -> list[Float[Tensor, " _"]]:
        """F0 of several waves, one by one: its convolutions would see a batch's padding."""
        return [self(wave) for wave in waves]
