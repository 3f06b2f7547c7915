"""Greedy generation by transformers on a model of SmolLM2-135M's shape, prompt and decoding timed separately.

    python peer_generate.py [--runs N] [--prompt 64] [--new 128] [--dtype f32|bf16]

A warm-up run, then a line {"ready": true, ...}. Then, for each line read from stdin, one run and a line
{"ms", "peakMiB", "promptMs", "tokensPerSecond"}: the time to the first new token, and the rate of the following ones.
"""

import argparse
import time

import peer


class Clock:
    """A streamer that records the time of each token."""

    def __init__(self):
        self.times = []

    def put(self, _ids):
        self.times.append(time.perf_counter())

    def end(self):
        pass


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--runs", type=int, default=1000)
    options.add_argument("--prompt", type=int, default=64)
    options.add_argument("--new", type=int, default=128)
    options.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    args = options.parse_args()

    import torch

    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    model = peer.model().to(dtype).eval()
    model.generation_config.eos_token_id = None  # random weights must not stop early
    ids = torch.randint(0, peer.VOCAB, (1, args.prompt))

    def generate():
        clock = Clock()
        start = time.perf_counter()
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, streamer=clock,
            min_new_tokens=args.new, max_new_tokens=args.new, pad_token_id=0,
        )
        assert out.shape[1] == args.prompt + args.new
        # The streamer's first call is the prompt.
        first, last = clock.times[1], clock.times[-1]
        return {"promptMs": (first - start) * 1000, "tokensPerSecond": (args.new - 1) / (last - first)}

    peer.race(generate, args.runs, prompt=args.prompt, new=args.new)


if __name__ == "__main__":
    main()
