"""A training step of a small character transformer on PyTorch: the counterpart of own-char.ts. Turns as in peer.py."""

import argparse

import peer

V, C, H, T, B, LAYERS = 65, 128, 4, 64, 16, 2
PASSES = 50


def char_transformer():
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1 = nn.LayerNorm(C)
            self.qkv = nn.Linear(C, 3 * C)
            self.out = nn.Linear(C, C)
            self.norm2 = nn.LayerNorm(C)
            self.up = nn.Linear(C, 4 * C)
            self.down = nn.Linear(4 * C, C)

        def forward(self, x):
            heads = self.qkv(self.norm1(x)).view(B, T, 3, H, C // H).permute(2, 0, 3, 1, 4)
            q, k, v = heads.unbind(0)
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(attended.transpose(1, 2).reshape(B, T, C))
            return x + self.down(F.gelu(self.up(self.norm2(x))))

    class CharTransformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(V, C)
            self.positions = nn.Embedding(T, C)
            self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
            self.norm = nn.LayerNorm(C)
            self.head = nn.Linear(C, V, bias=False)

        def forward(self, ids):
            x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    return CharTransformer()


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--steps", type=int, default=1000)
    args = options.parse_args()

    import torch
    from torch.nn import functional as F

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    model = char_transformer()
    # One kernel for all parameters: the fastest of PyTorch's three implementations here.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    ids = torch.randint(0, V, (B, T + 1))
    inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def turn():
        loss = None
        for _ in range(PASSES):
            loss = F.cross_entropy(model(inputs).view(B * T, V), targets.view(B * T))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            last = loss.item()
        return {"passes": PASSES, "loss": last}

    peer.race(turn, args.steps)


if __name__ == "__main__":
    main()
