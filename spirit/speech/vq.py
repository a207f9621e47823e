"""The network of pitch tokens: a small convolutional VQ-VAE."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class _Residual(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.wide = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Conv1d(width, width, 1)

    def forward(
        self, x: Float[Tensor, "batch width frames"]
    ) -> Float[Tensor, "batch width frames"]:
        mixed: Tensor = x + self.mix(self.wide(x.relu()).relu())
        return mixed


class Codebook(nn.Module):
    """Vectors that follow the means of what falls on them; the rarely used move to where data is.

    Exponential moving averages and restarts as in Jukebox (Dhariwal et al. 2020, section 3).
    """

    vectors: Tensor
    count: Tensor
    total: Tensor

    def __init__(self, codes: int, channels: int, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("vectors", torch.zeros(codes, channels))
        self.register_buffer("count", torch.zeros(codes))
        self.register_buffer("total", torch.zeros(codes, channels))

    def forward(
        self, hidden: Float[Tensor, "batch channels frames"]
    ) -> Int[Tensor, "batch frames"]:
        """The nearest code of every frame."""
        flat = hidden.transpose(1, 2).float()
        vectors = self.vectors.float()
        distance = vectors.square().sum(-1) - 2 * flat @ vectors.T
        return distance.argmin(-1)

    @torch.no_grad()
    def update(
        self,
        hidden: Float[Tensor, "batch channels frames"],
        codes: Int[Tensor, "batch frames"],
        rng: torch.Generator,
    ) -> int:
        """Follow a batch; codes with less than one frame a batch restart at random frames of it.
        Says how many."""
        flat = hidden.transpose(1, 2).reshape(-1, hidden.shape[1]).float()
        picks = torch.randint(len(flat), (len(self.vectors),), generator=rng).to(flat.device)
        fresh = flat[picks]
        hits = nn.functional.one_hot(codes.reshape(-1), len(self.vectors)).to(flat.dtype)
        count, total = hits.sum(0), hits.T @ flat
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            torch.distributed.all_reduce(count)
            torch.distributed.all_reduce(total)
            torch.distributed.broadcast(fresh, 0)
        self.count.mul_(self.decay).add_(count, alpha=1 - self.decay)
        self.total.mul_(self.decay).add_(total, alpha=1 - self.decay)
        dead = self.count < 1.0
        self.count[dead] = 1.0
        self.total[dead] = fresh[dead].to(self.total.dtype)
        self.vectors.copy_(self.total / self.count[:, None])
        return int(dead.sum())


class PitchVQ(nn.Module):
    """A convolutional VQ-VAE of contours (Jukebox-like; the sizes of Polyak et al. 2021): 0.2 M
    parameters."""

    def __init__(
        self,
        *,
        width: int = 32,
        depth: int = 4,
        halvings: int = 4,
        growth: int = 3,
        channels: int = 128,
        codes: int = 64,
    ) -> None:
        super().__init__()
        self.stride = 2**halvings
        down: list[nn.Module] = []
        for i in range(halvings):
            down.append(nn.Conv1d(width if i else 2, width, 4, stride=2, padding=1))
            down += [_Residual(width, growth**d) for d in range(depth)]
        self.encoder = nn.Sequential(*down, nn.Conv1d(width, channels, 3, padding=1))
        self.codebook = Codebook(codes, channels)
        up: list[nn.Module] = [nn.Conv1d(channels, width, 3, padding=1)]
        for i in range(halvings):
            up += [_Residual(width, growth**d) for d in reversed(range(depth))]
            wide = width if i < halvings - 1 else channels
            up.append(nn.ConvTranspose1d(width, wide, 4, stride=2, padding=1))
        self.decoder = nn.Sequential(*up, nn.Conv1d(channels, 2, 3, padding=1))

    def encode(self, contour: Float[Tensor, "batch 2 frames"]) -> Int[Tensor, "batch tokens"]:
        """One code for every `stride` frames."""
        codes: Tensor = self.codebook(self.encoder(contour))
        return codes

    def decode(self, codes: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch 2 frames"]:
        """The normalized contour and the voicing (voiced above 0.5) that codes stand for."""
        contour: Tensor = self.decoder(self.codebook.vectors[codes].transpose(1, 2))
        return contour

    def forward(
        self, contour: Float[Tensor, "batch 2 frames"]
    ) -> tuple[
        Float[Tensor, "batch 2 frames"],
        Float[Tensor, ""],
        Float[Tensor, "batch channels tokens"],
        Int[Tensor, "batch tokens"],
    ]:
        """For training: reconstruction, commitment loss, what the encoder said, and its codes."""
        hidden = self.encoder(contour)
        codes = self.codebook(hidden)
        vectors = self.codebook.vectors[codes].transpose(1, 2).to(hidden.dtype)
        commitment = nn.functional.mse_loss(hidden, vectors)
        # Straight through: the decoder sees the codes, the encoder its gradient.
        return (
            self.decoder(hidden + (vectors - hidden).detach()),
            commitment,
            hidden.detach(),
            codes,
        )
