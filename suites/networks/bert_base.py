"""BERT-base for `sparsebench verify bert-base`, from arXiv 1810.04805 in plain torch; names are Hugging Face's."""

from __future__ import annotations

from typing import Any

# torch: what the network is built of.
import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention

WIDTH, HEADS, DEPTH, TOKENS, WORDS = 768, 12, 12, 128, 30522


class Embeddings(nn.Module):  # type: ignore[misc]
    """Words, positions and segments, added up and normed."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(WORDS, WIDTH)
        self.position_embeddings = nn.Embedding(512, WIDTH)
        self.token_type_embeddings = nn.Embedding(2, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, ids: Any) -> Any:
        """[batch, tokens, width] of word numbers [batch, tokens], all of the first segment."""
        places = self.position_embeddings.weight[: ids.shape[1]] + self.token_type_embeddings.weight[0]
        return self.LayerNorm(self.word_embeddings(ids) + places)


class SelfAttention(nn.Module):  # type: ignore[misc]
    """12 heads, with a layer each for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Any) -> Any:
        """[batch, tokens, width] of the same."""
        batch, tokens, _ = x.shape
        heads = [
            layer(x).view(batch, tokens, HEADS, -1).transpose(1, 2) for layer in (self.query, self.key, self.value)
        ]
        return scaled_dot_product_attention(*heads).transpose(1, 2).reshape(batch, tokens, WIDTH)


class Output(nn.Module):  # type: ignore[misc]
    """A layer beside a shortcut, then a norm."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(k, WIDTH), nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: Any, shortcut: Any) -> Any:
        """[batch, tokens, width]."""
        return self.LayerNorm(self.dense(x) + shortcut)


class Attention(nn.Module):  # type: ignore[misc]
    """Self-attention and what follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.self, self.output = SelfAttention(), Output(WIDTH)

    def forward(self, x: Any) -> Any:
        """[batch, tokens, width] of the same."""
        return self.output(self.self(x), x)


class Intermediate(nn.Module):  # type: ignore[misc]
    """The first layer of the MLP, with GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(WIDTH, 4 * WIDTH)

    def forward(self, x: Any) -> Any:
        """[batch, tokens, 4 width]."""
        return gelu(self.dense(x))


class Layer(nn.Module):  # type: ignore[misc]
    """One of the 12: attention and MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.intermediate, self.output = Attention(), Intermediate(), Output(4 * WIDTH)

    def forward(self, x: Any) -> Any:
        """[batch, tokens, width] of the same."""
        x = self.attention(x)
        return self.output(self.intermediate(x), x)


class Encoder(nn.Module):  # type: ignore[misc]
    """The 12 layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer() for _ in range(DEPTH))

    def forward(self, x: Any) -> Any:
        """[batch, tokens, width] of the same."""
        for layer in self.layer:
            x = layer(x)
        return x


class Bert(nn.Module):  # type: ignore[misc]
    """Embeddings and encoder; the pooler is left out, as in bert-base.yaml."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings, self.encoder = Embeddings(), Encoder()

    def forward(self, ids: Any) -> Any:
        """[batch, tokens, width] of word numbers [batch, tokens]."""
        return self.encoder(self.embeddings(ids))


def build() -> nn.Module:
    """The network with torch's random weights."""
    return Bert()


def inputs(batch: int) -> tuple[Any, ...]:
    """Random words, 128 a sample."""
    return (torch.randint(0, WORDS, (batch, TOKENS)),)
