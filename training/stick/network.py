"""The heatmap detector: truncated EfficientNet-lite0, a small pyramid, and the decoding, all in one graph.

It is told where the person's wrists, elbows and shoulders are: a pole in the background, a bystander's stick or the
edge of a sleeve may look like a stick too, but starts in no hand.

Maps at a quarter of the input: where grip and tip are (a softmax over all cells: there is one of each), which cells are
shaft, and from every shaft cell the vectors to both ends. Two maxima alone confuse the ends; here the tip is looked for
where the grip's own vector points.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.skeleton import LEFT_ELBOW, LEFT_SHOULDER, LEFT_WRIST, RIGHT_ELBOW, RIGHT_SHOULDER, RIGHT_WRIST
from training.backbone import CHANNELS, FROZEN_BLOCKS, MEAN, STD, block_outputs, efficientnet_lite0

SIZE_PX = 224
STRIDE = 4
MAP_SIZE = SIZE_PX // STRIDE

_KEPT_BLOCKS = (2, 4, 10)
"""The last of the backbone's blocks at a 4th, an 8th and a 16th of the crop's side."""
_JOINTS = ((LEFT_WRIST, RIGHT_WRIST), (LEFT_ELBOW, RIGHT_ELBOW), (LEFT_SHOULDER, RIGHT_SHOULDER))
"""A map each; left and right in one, for detectors mix them up."""
_JOINT_SIGMA = 1.5  # cells
_PEAK_RADIUS = 3
_TIP_WINDOW = 12.0  # cells; a narrower one holds the tip back when the grip's vector is too short
_SHAFT_SAMPLES = 9


class Maps(NamedTuple):
    """Raw network outputs; M = MAP_SIZE."""

    heat: Tensor
    """(B, 3, M, M) logits: grip and tip over all cells (softmax), shaft in each cell (sigmoid)."""
    ends: Tensor
    """(B, 4, M, M): x, y to the grip and x, y to the tip, in units of the crop's side."""
    context: Tensor
    """(B, 64, M / 4, M / 4) features for presence."""


class Decoded(NamedTuple):
    """What the maps say of the stick."""

    points: Tensor
    """(B, 2, 3): grip and tip, x, y in 0..1 of the crop and score 0..1."""
    presence: Tensor
    """(B,) logit that a stick is visible."""


def _separable(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_in, 5, padding=2, groups=channels_in, bias=False),
        nn.BatchNorm2d(channels_in),
        nn.ReLU(),
        nn.Conv2d(channels_in, channels_out, 1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


class StickNet(nn.Module):
    """uint8 or float RGB 0..255 (B, 3, S, S) to maps; `decode` reads the stick from them."""

    mean: Tensor
    std: Tensor
    grid: Tensor

    def __init__(self, pretrained: bool = True) -> None:
        super().__init__()
        self.backbone: Any = efficientnet_lite0(pretrained)
        sizes = ((24, 32), (40, 64), (CHANNELS, 64))
        self.lateral4, self.lateral8, self.lateral16 = (
            nn.Conv2d(inputs + len(_JOINTS), outputs, 1) for inputs, outputs in sizes
        )
        self.merge16 = nn.Sequential(_separable(64, 64), _separable(64, 64))
        self.merge8 = nn.Sequential(_separable(64, 64), _separable(64, 32))
        self.merge4 = nn.Sequential(_separable(32, 32), _separable(32, 32))
        self.heat = nn.Conv2d(32, 3, 1)
        self.ends = nn.Conv2d(32, 4, 1)
        self.presence = nn.Sequential(nn.Linear(64 + 64 + 5, 32), nn.ReLU(), nn.Linear(32, 1))
        nn.init.constant_(self.heat.bias, -3.0)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.tensor(MEAN)[None, :, None, None] * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD)[None, :, None, None] * 255, persistent=False)
        centres = (torch.arange(MAP_SIZE) + 0.5) / MAP_SIZE
        grid = torch.stack(torch.meshgrid(centres, centres, indexing="xy")).flatten(1)
        self.register_buffer("grid", grid, persistent=False)  # (2, M * M): x, y of the cells' centres

    def forward(self, image: Tensor, body: Tensor) -> Maps:
        """image: (B, 3, SIZE_PX, SIZE_PX) RGB 0..255; body: float (B, 17, 3) x, y in 0..1 of it and confidence."""
        blocks = block_outputs(self.backbone, (image.float() - self.mean) / self.std)
        at4, at8, at16 = (blocks[index] for index in _KEPT_BLOCKS)
        joints4 = self._joint_maps(body)
        joints8 = F.max_pool2d(joints4, 2)
        joints16 = F.max_pool2d(joints8, 2)
        deep = self.merge16(self.lateral16(torch.cat([at16, joints16], 1)))
        middle = self.merge8(self.lateral8(torch.cat([at8, joints8], 1)) + F.interpolate(deep, scale_factor=2.0))
        fine = self.merge4(self.lateral4(torch.cat([at4, joints4], 1)) + F.interpolate(middle, scale_factor=2.0))
        return Maps(self.heat(fine).float(), self.ends(fine).float(), deep.float())

    def _joint_maps(self, body: Tensor) -> Tensor:
        """(B, 3, M, M): a bump as high as the confidence at both wrists, at both elbows, and at both shoulders."""
        points = body[:, [joint for pair in _JOINTS for joint in pair]]
        distance2 = ((points[:, :, :2, None] - self.grid) * MAP_SIZE).square().sum(2)
        bumps = points[:, :, 2, None] * torch.exp(-distance2 / (2 * _JOINT_SIGMA**2))
        return bumps.unflatten(1, (len(_JOINTS), 2)).amax(2).unflatten(2, (MAP_SIZE, MAP_SIZE))

    def decode(self, maps: Maps) -> Decoded:
        """Grip at its peak, tip near where the grip points, both to a fraction of a cell, and presence."""
        logits, ends = maps.heat.flatten(2), maps.ends.flatten(2)
        grip, grip_score, weight = self._peak(logits[:, 0])
        expected = grip + (ends[:, 2:] * weight[:, None]).sum(2)
        distance2 = ((self.grid[None] - expected[:, :, None]) * MAP_SIZE).square().sum(1)
        tip, tip_score, _ = self._peak(logits[:, 1] - distance2 / (2 * _TIP_WINDOW**2))
        shaft_map = torch.sigmoid(logits[:, 2])
        shaft = self._along(shaft_map, grip, tip)
        evidence = torch.stack([grip_score, tip_score, shaft.mean(1), shaft.amin(1), shaft_map.amax(1)], 1)
        context = maps.context.flatten(2)
        logit = self.presence(torch.cat([context.mean(2), context.amax(2), evidence], 1))[:, 0]
        points = torch.stack([torch.cat([grip, grip_score[:, None]], 1), torch.cat([tip, tip_score[:, None]], 1)], 1)
        return Decoded(points, logit)

    def _peak(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Likeliest place in logits (B, M * M): mean position near the maximum, the probability there, weights.

        The score is the probability that the end is near this place rather than elsewhere in the map.
        """
        index = logits.argmax(1, keepdim=True)
        column, row = index % MAP_SIZE, index // MAP_SIZE
        cell = torch.arange(MAP_SIZE * MAP_SIZE, device=logits.device)[None]
        near = ((cell % MAP_SIZE - column).abs() <= _PEAK_RADIUS) & ((cell // MAP_SIZE - row).abs() <= _PEAK_RADIUS)
        weight = torch.softmax(logits, 1) * near
        mass = weight.sum(1)
        weight = weight / mass[:, None]
        return (self.grid[None] * weight[:, None]).sum(2), mass, weight

    def _along(self, shaft_map: Tensor, grip: Tensor, tip: Tensor) -> Tensor:
        """Shaft probability at points between grip and tip: (B, samples)."""
        share = torch.linspace(0.1, 0.9, _SHAFT_SAMPLES, device=grip.device)[None, :, None]
        places = (grip[:, None] + share * (tip - grip)[:, None]).detach() * MAP_SIZE
        cells = places.clamp(0, MAP_SIZE - 1).long()
        return shaft_map.gather(1, cells[..., 1] * MAP_SIZE + cells[..., 0])

    def parameter_groups(self, head_rate: float, backbone_rate: float) -> list[dict[str, object]]:
        """Optimiser groups: the new layers learn faster than the pretrained ones; the first blocks not at all."""
        tuned = [p for block in self.backbone._blocks[FROZEN_BLOCKS:] for p in block.parameters()]
        head = [p for name, p in self.named_parameters() if not name.startswith("backbone.")]
        return [{"params": head, "lr": head_rate}, {"params": tuned, "lr": backbone_rate}]


class Served(nn.Module):
    """What is exported: image and body to points (B, 2, 3) and presence probability (B,)."""

    def __init__(self, net: StickNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, body: Tensor) -> tuple[Tensor, Tensor]:
        """image: uint8 (B, SIZE_PX, SIZE_PX, 3) RGB; body: float32 (B, 17, 3) x, y in 0..1 of it and confidence."""
        decoded = self.net.decode(self.net(image.permute(0, 3, 1, 2), body))
        return decoded.points, torch.sigmoid(decoded.presence)
