"""One call of Imagine360's dual UNet as its authors compute it: both rows, all views and all frames at once.

Transcribed from the description of the method, with the weights of ``networks.imagine360.Imagine360Network``. Text and
image tokens are repeated for every picture; at each exchange block the masks are made anew, by warping pictures of a
single bright pixel, and so are the encodings. Our geometry, walk and attention are not used.
"""

import math

import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, Upsample
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor, nn


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """[B, L, C] of PyTorch's attention."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, bias).transpose(1, 2).flatten(2)


# ---- geometry ------------------------------------------------------------------------------------


def rotation(theta: float, phi: float) -> Tensor:
    """[3, 3]: about z by theta, then about the turned y by -phi (Rodrigues' formula); x ahead, y right, z up."""
    t, p = math.radians(theta), -math.radians(phi)
    about_z = torch.tensor([[math.cos(t), -math.sin(t), 0], [math.sin(t), math.cos(t), 0], [0, 0, 1]])
    x, y, z = about_z @ torch.tensor([0.0, 1.0, 0.0])
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    about_y = torch.eye(3) + math.sin(p) * cross + (1 - math.cos(p)) * cross @ cross
    return about_y @ about_z


def read(pictures: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """[N, 1, h, w] of [N, 1, H, W] at pixels (column, row) [h, w], bilinear, zeros outside."""
    height, width = pictures.shape[-2:]
    grid = torch.stack([column * 2 / max(width - 1, 1) - 1, row * 2 / max(height - 1, 1) - 1], -1)
    grid = grid.to(pictures).expand(len(pictures), -1, -1, -1)
    return F.grid_sample(pictures, grid, padding_mode="zeros", align_corners=True)


def to_view(pictures: Tensor, camera: tuple, height: int, width: int) -> Tensor:
    """Panoramas as a camera sees them."""
    theta, phi, fov = camera
    y = torch.linspace(-1, 1, width) * math.tan(math.radians(fov / 2))
    z = -torch.linspace(-1, 1, height) * math.tan(math.radians(fov * height / width / 2))
    z, y = torch.meshgrid(z, y, indexing="ij")
    rays = torch.stack([torch.ones_like(y), y, z], -1)
    rays = rays / rays.norm(dim=-1, keepdim=True) @ rotation(theta, phi).T
    longitude, latitude = torch.atan2(rays[..., 1], rays[..., 0]), -torch.asin(rays[..., 2].clamp(-1, 1))
    cx, cy = (pictures.shape[3] - 1) / 2, (pictures.shape[2] - 1) / 2
    return read(pictures, longitude / math.pi * cx + cx, latitude / (math.pi / 2) * cy + cy)


def to_panorama(pictures: Tensor, camera: tuple, height: int, width: int) -> Tensor:
    """Views as they lie on a panorama, zeros elsewhere."""
    theta, phi, fov = camera
    right = math.tan(math.radians(fov / 2))
    up = math.tan(math.radians(fov * pictures.shape[2] / pictures.shape[3] / 2))
    latitude, longitude = torch.meshgrid(
        torch.linspace(math.pi / 2, -math.pi / 2, height), torch.linspace(-math.pi, math.pi, width), indexing="ij"
    )
    rays = torch.stack([latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()], -1)
    x, y, z = (rays @ torch.linalg.inv(rotation(theta, phi)).T).unbind(-1)
    y, z = y / x, z / x
    known = (x > 0) & (y.abs() < right) & (z.abs() < up)
    u = torch.where(known, (y + right) / (2 * right) * pictures.shape[3], -9.0)
    v = torch.where(known, (up - z) / (2 * up) * pictures.shape[2], -9.0)
    return read(pictures, u, v)


def bright_pixels(height: int, width: int, shift: int = 0, **kind) -> Tensor:
    """[height * width, 1, height, width]: picture i has its i-th pixel at 1, ``shift`` columns further."""
    pixels = torch.eye(height * width, **kind).view(-1, 1, height, width)
    return pixels.roll(shift, -1)


def blurred(pictures: Tensor) -> Tensor:
    """[N, 1, h, w], 5 x 5 Gaussian of deviation 1, edges repeated."""
    weights = torch.exp(-(torch.arange(-2.0, 3.0) ** 2) / 2)
    weights = (weights / weights.sum()).to(pictures)
    return F.conv2d(F.pad(pictures, (2, 2, 2, 2), mode="replicate"), torch.outer(weights, weights)[None, None])


def masks(cameras: tuple, view: tuple, panorama: tuple, antipodal: bool, **kind) -> tuple[Tensor, Tensor]:
    """Biases [E, m p] and [m p, E]."""
    shift, turn = (panorama[1] // 2, 180.0) if antipodal else (0, 0.0)
    lit_panorama, lit_view = bright_pixels(*panorama, shift, **kind), bright_pixels(*view, **kind)
    pers = torch.stack([to_view(lit_panorama, camera, *view)[:, 0] for camera in cameras])
    equi = torch.stack(
        [to_panorama(lit_view, (yaw + turn, pitch, fov), *panorama)[:, 0] for yaw, pitch, fov in cameras]
    )
    pers, equi = pers.flatten(2), equi.flatten(2)  # [m, E, p], [m, p, E]
    pers = (pers + equi.transpose(1, 2)).clamp(0, 1)
    equi = (equi + pers.transpose(1, 2)).clamp(0, 1)
    pers = blurred(pers.reshape(-1, 1, *view)).view_as(pers).transpose(0, 1).flatten(1)
    equi = equi.reshape(-1, 1, *panorama)
    equi = blurred(F.pad(equi, (2, 2, 0, 0), mode="circular"))[..., 2:-2].reshape(-1, panorama[0] * panorama[1])
    found = []
    for mask in (pers, equi):
        most = mask.amax(1, keepdim=True)
        found.append(mask / torch.where(most > 0, most, torch.ones_like(most)) * 2 - 1)
    return found[0], found[1]


def encoded(longitude: Tensor, latitude: Tensor, bands: Tensor) -> Tensor:
    """[N, 4 K] of [N] each."""
    lon, lat = longitude[:, None] * bands, latitude[:, None] * bands
    return torch.cat([lon.sin(), lat.sin(), lon.cos(), lat.cos()], -1)


def encodings(cameras: tuple, view: tuple, panorama: tuple, bands: Tensor) -> tuple[Tensor, Tensor]:
    """[E, C] and [m p, C] in float32."""
    lat, lon = torch.meshgrid(
        torch.linspace(math.pi / 2, -math.pi / 2, panorama[0]), torch.linspace(-math.pi, math.pi, panorama[1]),
        indexing="ij",
    )  # fmt: skip
    views = []
    for theta, phi, fov in cameras:
        y = torch.linspace(-1, 1, view[1]) * math.tan(math.radians(fov / 2))
        z = -torch.linspace(-1, 1, view[0]) * math.tan(math.radians(fov * view[0] / view[1] / 2))
        z, y = torch.meshgrid(z, y, indexing="ij")
        rays = F.normalize(torch.stack([torch.ones_like(y), y, z], -1), dim=-1) @ rotation(theta, phi).T
        views.append((torch.atan2(rays[..., 1], rays[..., 0]), -torch.asin(rays[..., 2].clamp(-1, 1))))
    view_lon, view_lat = (torch.stack(one).flatten() for one in zip(*views, strict=True))
    return encoded(lon.flatten(), lat.flatten(), bands), encoded(view_lon, view_lat, bands)


# ---- network -------------------------------------------------------------------------------------


class PublishedImagine360:
    """The dual UNet.

    Args:
        network: an Imagine360Network, whose modules are used; the encodings are float32's.
    """

    def __init__(self, network: nn.Module):
        self.network = network

    @torch.no_grad()
    def __call__(self, latents, timesteps, context, condition, draws) -> list[Tensor]:
        """As the network is called."""
        network, frames = self.network, latents[0].shape[2]
        self.cameras, self.frames = condition.cameras, frames
        states, embeddings, contexts = [], [], []
        for latent, branch, known, features, noise in (
            (latents[0], network.panorama, condition.panorama, condition.anchor_features, draws.token_noise[0]),
            (latents[1], network.views, condition.views, condition.frame_features, draws.token_noise[1]),
        ):
            pictures = torch.cat([latent, known], 1).transpose(1, 2)
            count = pictures.shape[1]
            width = branch.sizes.unet["model_channels"]
            embedding = branch.unet.time_embed(timestep_embedding(timesteps, width).to(latent))
            fps = timestep_embedding(torch.full_like(timesteps, condition.fps), width).to(latent)
            embedding = embedding + branch.fps_embedding(fps)
            tokens = branch.image_proj_model(branch.temporal_proj(features)) + noise.to(latent)
            if branch is network.panorama:
                tokens = torch.stack(
                    [self.told(branch.position, condition, row, one) for row, one in enumerate(tokens)]
                )
            states.append(pictures.flatten(0, 1))
            embeddings.append(embedding.repeat_interleave(count, 0))
            contexts.append((context.repeat_interleave(count, 0), tokens.repeat_interleave(count, 0)))
        self.embeddings, self.contexts = embeddings, contexts
        states = self.through(states, draws.antipodal)
        return [
            state.unflatten(0, (len(latent), -1)).transpose(1, 2) for state, latent in zip(states, latents, strict=True)
        ]

    def told(self, position: nn.Module, condition, row: int, tokens: Tensor) -> Tensor:
        """A row's tokens [Q, C] with the position of frame i added to token i, of the last frame to those after."""
        last = condition.pitch.shape[1] - 1
        told = []
        for token, at in zip(tokens, [min(i, last) for i in range(len(tokens))], strict=True):
            numbers = [timestep_embedding(number[None], position.sinusoids) for number in condition.position[row, at]]
            place = position.cond_rp_proj(position.add_cond_embedding(torch.cat(numbers, 1).to(token)))
            pitch = timestep_embedding(condition.pitch[row, at][None], position.sinusoids).to(token)
            told.append(token + torch.cat([place, position.add_cond_embedding2(pitch)], 1)[0])
        return torch.stack(told)

    def through(self, states: list[Tensor], antipodal: tuple) -> list[Tensor]:
        """Both UNets, block by block."""
        branches = self.network.panorama, self.network.views
        order = iter(zip(self.network.exchange, antipodal, strict=True))
        skips: list[list[Tensor]] = []
        for number in range(len(branches[0].unet.input_blocks)):
            blocks = [branch.unet.input_blocks[number] for branch in branches]
            states = [self.block(i, blocks[i], states[i], "input", number) for i in (0, 1)]
            skips.append(states)
            if isinstance(blocks[0][0], Downsample):
                states = self.exchange(*next(order), states)
        states = [self.block(i, branch.unet.middle_block, states[i], "middle", 0) for i, branch in enumerate(branches)]
        states = self.exchange(*next(order), states)
        for number in range(len(branches[0].unet.output_blocks)):
            states = [torch.cat([state, skip], 1) for state, skip in zip(states, skips.pop(), strict=True)]
            blocks = [list(branch.unet.output_blocks[number]) for branch in branches]
            last = [block.pop() if isinstance(block[-1], Upsample) else None for block in blocks]
            states = [self.block(i, blocks[i], states[i], "output", number) for i in (0, 1)]
            if last[0] is not None:
                states = self.exchange(*next(order), states)
                states = [self.wide(i, last[i], states[i], 1, 2) for i in (0, 1)]
        result = []
        for i, branch in enumerate(branches):
            norm, activation, convolution = branch.unet.out
            result.append(self.wide(i, convolution, activation(norm(states[i])), 1, 1))
        return result

    def wide(self, i: int, layer, x: Tensor, pad: int, cut: int) -> Tensor:
        """The panorama's columns are continued round it."""
        if i == 1:
            return layer(x)
        return layer(torch.cat([x[..., -pad:], x, x[..., :pad]], -1))[..., cut:-cut]

    def block(self, i: int, layers, x: Tensor, side: str, number: int) -> Tensor:
        """Residual blocks, attentions, and the motion module where a block has one."""
        branch = (self.network.panorama, self.network.views)[i]
        motion = branch.motion_at(side, number)
        for layer in layers:
            if isinstance(layer, ResBlock):
                x = self.wide(i, lambda y, layer=layer: layer(y, self.embeddings[i]), x, 2, 2)
            elif isinstance(layer, SpatialTransformer):
                x = self.spatial(layer, x, *self.contexts[i])
                if motion is not None:
                    x = self.temporal(motion, x)
            elif isinstance(layer, Downsample):
                x = self.wide(i, layer, x, 2, 1)
            else:
                x = self.wide(i, layer, x, 1, 1)
        return x

    def spatial(self, layer: nn.Module, x: Tensor, text: Tensor, image: Tensor) -> Tensor:
        """A spatial transformer with attention to text and to image tokens."""
        height, width = x.shape[2:]
        y = layer.proj_in(layer.norm(x).flatten(2).transpose(1, 2))
        for block in layer.transformer_blocks:
            own, cross = block.attn1, block.attn2
            z = block.norm1(y)
            y = y + own.to_out(attention(own.to_q(z), own.to_k(z), own.to_v(z), own.heads))
            q = cross.to_q(block.norm2(y))
            seen = attention(q, cross.to_k(text), cross.to_v(text), cross.heads)
            seen = seen + attention(q, cross.to_k_ip(image), cross.to_v_ip(image), cross.heads)
            y = y + cross.to_out(seen)
            y = y + block.ff(block.norm3(y))
        return x + layer.proj_out(y).transpose(1, 2).unflatten(2, (height, width))

    def temporal(self, module: nn.Module, x: Tensor) -> Tensor:
        """A motion module."""
        frames, (height, width) = self.frames, x.shape[2:]
        y = module.norm(x).flatten(2).unflatten(0, (-1, frames)).permute(0, 3, 1, 2).flatten(0, 1)
        y = module.proj_in(y)
        for block in module.transformer_blocks:
            for own, norm in zip(block.attention_blocks, block.norms, strict=True):
                z = norm(y) + own.pos_encoder.pe[:, :frames]
                y = y + own.to_out(attention(own.to_q(z), own.to_k(z), own.to_v(z), own.heads))
            y = y + block.ff(block.ff_norm(y))
        y = module.proj_out(y).unflatten(0, (-1, height * width)).permute(0, 2, 3, 1).flatten(0, 1)
        return x + y.unflatten(2, (height, width))

    def exchange(self, block: nn.Module, antipodal: bool, states: list[Tensor]) -> list[Tensor]:
        """Both directions by what came in."""
        pano, pers = states
        views, frames = len(self.cameras), self.frames
        sizes = tuple(pers.shape[2:]), tuple(pano.shape[2:])
        kind = {"device": pano.device, "dtype": pano.dtype}
        bias = masks(self.cameras, *sizes, antipodal, **kind)
        encoding = [one.to(**kind) for one in encodings(self.cameras, *sizes, block.bands.float().cpu())]
        a = pano.flatten(2).transpose(1, 2)
        b = pers.unflatten(0, (-1, views, frames)).transpose(1, 2).flatten(0, 1)  # [rows * f, m, C, h, w]
        b = b.flatten(3).transpose(2, 3).flatten(1, 2)
        new_a = self.attend(block, a, b, *encoding, bias[0])
        new_b = self.attend(block, b, a, *reversed(encoding), bias[1])
        new_a = new_a.transpose(1, 2).reshape(pano.shape)
        new_b = new_b.unflatten(1, (views, -1)).transpose(2, 3).unflatten(0, (-1, frames)).transpose(1, 2)
        return [new_a, new_b.reshape(pers.shape)]

    @staticmethod
    def attend(block: nn.Module, x: Tensor, other: Tensor, place: Tensor, other_place: Tensor, bias: Tensor) -> Tensor:
        own, z, context = block.attn1, block.norm1(x + place), block.norm1(other + other_place)
        x = x + own.to_out(attention(own.to_q(z), own.to_k(context), own.to_v(context), own.heads, bias))
        return x + block.ff(block.norm2(x))
