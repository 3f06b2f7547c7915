"""f32 products of numpy (OpenBLAS) and of PyTorch (oneDNN or MKL) in turns, C = A·Bᵀ.

    python peer_gemm.py MxNxK…

Turns as in peer.py, with GFLOP/s.
"""

import sys
import time

import peer

# As in the counterparts: a product is repeated until this much arithmetic is done.
LEAST = 4e10


def rate(flops, product):
    times = int(min(max(-(-LEAST // flops), 1), 50))
    product()
    start = time.perf_counter()
    for _ in range(times):
        product()
    return times * flops / (time.perf_counter() - start) / 1e9


def main():
    import numpy
    import torch

    def turn():
        rates = {}
        for shape in sys.argv[1:]:
            m, n, k = map(int, shape.split("x"))
            flops = 2 * m * n * k
            a, b = torch.rand(m, k), torch.rand(n, k)
            c = torch.empty(m, n)
            rates[f"torch {shape}"] = rate(flops, lambda: torch.mm(a, b.t(), out=c))
            x, y, z = a.numpy(), b.numpy(), c.numpy()
            rates[f"numpy {shape}"] = rate(flops, lambda: numpy.matmul(x, y.T, out=z))
        return {"rates": rates}

    peer.race(turn, 1000)


if __name__ == "__main__":
    main()
