"""Greedy generation by transformers on a model of SmolLM2-135M's shape, timed.

    python peer_generate.py [--runs N] [--prompt 64] [--new 128]

A warm-up run, then a line {"ready": true, ...}. Then, for each line read from stdin, one run and a line
{"ms", "peakMiB", "tokensPerSecond"}, prompt and new tokens together in the time; the rate counts the new ones.
"""

import argparse
import time

import peer


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--prompt", type=int, default=64)
    options.add_argument("--new", type=int, default=128)
    args = options.parse_args()

    import torch

    model = peer.model().eval()
    model.generation_config.eos_token_id = None  # random weights must not stop early
    ids = torch.randint(0, peer.VOCAB, (1, args.prompt))

    def generate(new=args.new):
        start = time.perf_counter()
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
            min_new_tokens=new, max_new_tokens=new, pad_token_id=0,
        )
        assert out.shape[1] == args.prompt + new
        return {"tokensPerSecond": new / (time.perf_counter() - start)}

    peer.race(generate, args.runs, prompt=args.prompt, new=args.new)


if __name__ == "__main__":
    main()
