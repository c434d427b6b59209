"""ViT-B/16 for `sparsebench verify vit-b16`, from arXiv 2010.11929 in plain torch; names are those of vit-b16.yaml."""

from __future__ import annotations

from typing import Any

# torch: what the network is built of.
import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention

WIDTH, HEADS, DEPTH, TOKENS = 768, 12, 12, 197


class Attention(nn.Module):  # type: ignore[misc]
    """Self-attention of 12 heads, queries, keys and values from one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Any) -> Any:
        """[batch, tokens, width] of the same."""
        batch, tokens, _ = x.shape
        heads = self.qkv(x).view(batch, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(*heads.unbind(0))
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, WIDTH))


class Mlp(nn.Module):  # type: ignore[misc]
    """Two layers with GELU between them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Any) -> Any:
        """[batch, tokens, width] of the same."""
        return self.fc2(gelu(self.fc1(x)))


class Block(nn.Module):  # type: ignore[misc]
    """Attention and MLP, each behind a norm and beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(WIDTH, eps=1e-6), Attention()
        self.norm2, self.mlp = nn.LayerNorm(WIDTH, eps=1e-6), Mlp()

    def forward(self, x: Any) -> Any:
        """[batch, tokens, width] of the same."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):  # type: ignore[misc]
    """An image cut into 14 x 14 patches, each a token."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, 16, stride=16)

    def forward(self, x: Any) -> Any:
        """[batch, 196, width] of images [batch, 3, 224, 224]."""
        return self.proj(x).flatten(2).transpose(1, 2)


class Vit(nn.Module):  # type: ignore[misc]
    """Patches, class token and positions, 12 blocks, the class token's logits."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed()
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.randn(1, TOKENS, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm, self.head = nn.LayerNorm(WIDTH, eps=1e-6), nn.Linear(WIDTH, 1000)

    def forward(self, x: Any) -> Any:
        """[batch, 1000] of images [batch, 3, 224, 224]."""
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


def build() -> nn.Module:
    """The network with torch's random weights."""
    return Vit()


def inputs(batch: int) -> tuple[Any, ...]:
    """Random images."""
    return (torch.randn(batch, 3, 224, 224),)
