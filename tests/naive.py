"""The naive witness: HRViT written module by module from the specification, as plainly as possible.

It has NCHW maps, tokens that are flattened and restored, zero-padded windows with an additive mask, and explicit
attention. Nothing is fused or shared with the library. Its parameters have the published names, so that its state dict
can replace a published checkpoint.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


class Stem(nn.Module):
    def __init__(self, in_chans, width):
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, width // 2, 3, 2, 1)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width, 3, 2, 1)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)))


class Fusion(nn.Module):
    def __init__(self, ins, outs):
        super().__init__()
        rows = []
        for i, c_out in enumerate(outs):
            row = []
            for j, c_in in enumerate(ins):
                if i == j:
                    path = nn.Identity()
                elif j < i:
                    s = 2 ** (i - j)
                    path = nn.Sequential(
                        nn.Conv2d(c_in, c_in, s + 1, s, s // 2, groups=c_in, bias=False),
                        nn.BatchNorm2d(c_in),
                        nn.Conv2d(c_in, c_out, 1),
                        nn.BatchNorm2d(c_out),
                    )
                else:
                    path = nn.Sequential(nn.Conv2d(c_in, c_out, 1), nn.BatchNorm2d(c_out))
                row.append(path)
            rows.append(nn.ModuleList(row))
        self.blocks = nn.ModuleList(rows)

    def forward(self, maps):
        outs = []
        for i, row in enumerate(self.blocks):
            total = 0
            for j, path in enumerate(row):
                y = path(maps[j])
                if j > i:
                    y = F.interpolate(y, size=maps[i].shape[2:], mode="nearest")
                total = total + y
            outs.append(F.gelu(total))
        return outs


class PatchEmbed(nn.Module):
    def __init__(self, c_in, dim):
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(c_in, dim, 1), nn.Conv2d(dim, dim, 3, 1, 1, groups=dim))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x):
        return self.norm(self.proj(x).flatten(2).transpose(1, 2))


class Attention(nn.Module):
    def __init__(self, dim, head_dim, window):
        super().__init__()
        half = dim // 2
        self.heads = 1 if half < head_dim else half // head_dim
        self.window = window
        self.to_qkv = nn.Linear(dim, 2 * dim)
        self.to_out = nn.Sequential(nn.Linear(dim, dim), nn.Dropout(0.0))
        self.attn_bn = nn.BatchNorm1d(dim)
        self.parallel_conv = nn.Sequential(nn.Hardswish(), nn.Conv2d(dim, dim, 3, 1, 1, groups=dim))
        nn.init.zeros_(self.attn_bn.weight)
        nn.init.zeros_(self.attn_bn.bias)

    def stripes(self, q, v):
        """(B, C, H, W): horizontal stripes of ``window`` rows, padded at the bottom."""
        B, C, H, W = q.shape
        w = self.window
        pad = (w - H % w) % w
        q, v = F.pad(q, (0, 0, 0, pad)), F.pad(v, (0, 0, 0, pad))
        n = (H + pad) // w

        def windows(x):
            x = x.reshape(B, self.heads, C // self.heads, n, w, W).permute(0, 3, 1, 4, 5, 2)
            return x.reshape(B * n, self.heads, w * W, C // self.heads)

        q, v = windows(q), windows(v)
        logits = (q @ v.transpose(-2, -1)) * (C // self.heads) ** -0.5
        if pad:
            mask = torch.zeros(H + pad, W, device=q.device, dtype=q.dtype)
            mask[H:] = -float("inf")
            mask = mask.reshape(n, 1, 1, w * W)
            logits = (logits.reshape(B, n, self.heads, w * W, w * W) + mask).flatten(0, 1)
        out = logits.softmax(-1) @ v
        out = out.reshape(B, n, self.heads, w, W, C // self.heads).permute(0, 2, 5, 1, 3, 4)
        return out.reshape(B, C, H + pad, W)[:, :, :H]

    def forward(self, x, H, W):
        B, N, C = x.shape
        q, v = self.to_qkv(x).chunk(2, dim=-1)
        q = q.transpose(1, 2).reshape(B, C, H, W)
        v = v.transpose(1, 2).reshape(B, C, H, W)
        q1, q2 = q.chunk(2, dim=1)
        v1, v2 = v.chunk(2, dim=1)
        horizontal = self.stripes(q1, v1)
        vertical = self.stripes(q2.transpose(2, 3), v2.transpose(2, 3)).transpose(2, 3)
        y = torch.cat([horizontal, vertical], dim=1) + self.parallel_conv(v)
        y = self.to_out(F.hardswish(y).flatten(2).transpose(1, 2))
        return self.attn_bn(y.transpose(1, 2)).transpose(1, 2)


class DES(nn.Module):
    def __init__(self, dim):
        super().__init__()
        e = math.floor(math.log2(dim))
        self.p = 2 ** (e - e // 2)
        self.k = dim // self.p
        self.proj_right = nn.Linear(self.p, self.p)
        self.proj_left = nn.Linear(self.k, self.k)

    def forward(self, x):
        y = self.proj_right(x.reshape(*x.shape[:-1], self.k, self.p))
        y = self.proj_left(F.gelu(y.transpose(-1, -2)))
        return y.transpose(-1, -2).flatten(-2)


class MixConv(nn.Module):
    def __init__(self, half):
        super().__init__()
        self.conv_3 = nn.Conv2d(half, half, 3, 1, 1, groups=half)
        self.conv_5 = nn.Conv2d(half, half, 5, 1, 2, groups=half)

    def forward(self, x):
        a, b = x.chunk(2, dim=1)
        return torch.cat([self.conv_3(a), self.conv_5(b)], dim=1)


class MixCFN(nn.Module):
    def __init__(self, dim, ratio):
        super().__init__()
        hidden = int(dim * ratio)
        self.fc1 = nn.Linear(dim, hidden)
        self.conv = MixConv(hidden // 2)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x, H, W):
        B, N, C = x.shape
        y = self.fc1(x).transpose(1, 2).reshape(B, -1, H, W)
        return self.fc2(F.gelu(self.conv(y)).flatten(2).transpose(1, 2))


class Block(nn.Module):
    def __init__(self, dim, head_dim, window, ratio):
        super().__init__()
        self.attn_norm = nn.LayerNorm(dim)
        self.attn = Attention(dim, head_dim, window)
        self.des = DES(dim)
        self.ffn_norm = nn.LayerNorm(dim)
        self.ffn = MixCFN(dim, ratio)

    def forward(self, x, H, W):
        x = x + (self.attn(self.attn_norm(x), H, W) + self.des(x))
        return x + self.ffn(self.ffn_norm(x), H, W)


class Stage(nn.Module):
    def __init__(self, ins, dims, depths, head_dims, windows, ratios):
        super().__init__()
        self.patch_embed = nn.ModuleList(PatchEmbed(a, b) for a, b in zip(ins, dims, strict=True))
        self.branches = nn.ModuleList(
            nn.ModuleList(Block(dims[i], head_dims[i], windows[i], ratios[i]) for _ in range(depth))
            for i, depth in enumerate(depths)
        )
        self.norm = nn.ModuleList(nn.LayerNorm(dim) for dim in dims)

    def forward(self, maps):
        outs = []
        for i, x in enumerate(maps):
            B, _, H, W = x.shape
            x = self.patch_embed[i](x)
            for block in self.branches[i]:
                x = block(x, H, W)
            outs.append(self.norm[i](x).transpose(1, 2).reshape(B, -1, H, W))
        return outs


class Bottleneck(nn.Module):
    def __init__(self, c_in, h):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, h, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(h)
        self.conv2 = nn.Conv2d(h, h, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(h)
        self.conv3 = nn.Conv2d(h, 4 * h, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * h)
        self.downsample = nn.Sequential(nn.Conv2d(c_in, 4 * h, 1, bias=False), nn.BatchNorm2d(4 * h))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class Head(nn.Module):
    def __init__(self, dims, widths, features, classes):
        super().__init__()
        self.incre_modules = nn.ModuleList(nn.Sequential(Bottleneck(c, h)) for c, h in zip(dims, widths, strict=True))
        self.downsamp_modules = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4 * a, 4 * b, 3, 2, 1), nn.BatchNorm2d(4 * b), nn.ReLU())
            for a, b in pairwise(widths)
        )
        self.final_layer = nn.Sequential(nn.Conv2d(4 * widths[-1], features, 1), nn.BatchNorm2d(features), nn.ReLU())
        self.classifier = nn.Linear(features, classes)

    def forward(self, maps):
        y = self.incre_modules[0](maps[0])
        for i in range(1, len(maps)):
            y = self.incre_modules[i](maps[i]) + self.downsamp_modules[i - 1](y)
        return self.classifier(self.final_layer(y).mean((2, 3)))


class NaiveHRViT(nn.Module):
    """Built only from the public fields of a config."""

    def __init__(self, config):
        super().__init__()
        self.stem = Stem(config.in_chans, config.stem_width)
        features, previous = [], [config.stem_width]
        for depths in config.depths:
            n = len(depths)
            fused = [*previous, *config.widths[len(previous) : n]]
            features.append(Fusion(previous, fused))
            features.append(
                Stage(fused, config.widths[:n], depths, config.head_dims, config.window_sizes, config.mlp_ratios)
            )
            previous = list(config.widths[:n])
        self.features = nn.ModuleList(features)
        self.head = Head(previous, config.head_widths, config.head_features, config.num_classes)

    def forward_features(self, x):
        maps = [self.stem(x)]
        for feature in self.features:
            maps = feature(maps)
        return maps

    def forward(self, x):
        return self.head(self.forward_features(x))
