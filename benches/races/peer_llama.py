"""llama.cpp on a GGUF file, prompt and decoding timed separately, by llama-cpp-python with one thread per core.

    python peer_llama.py FILE [--runs N] [--prompt 512] [--new 96]

A warm-up run, then a line {"ready": true, ...}. Then, for each line read from stdin, one run and a line
{"ms", "peakMiB", "promptMs", "tokensPerSecond"}: for a prompt alone, and for single tokens after a prompt of 16.
"""

import argparse
import os
import time

import peer


def main():
    options = argparse.ArgumentParser()
    options.add_argument("file")
    options.add_argument("--runs", type=int, default=1000)
    options.add_argument("--prompt", type=int, default=512)
    options.add_argument("--new", type=int, default=96)
    args = options.parse_args()

    import llama_cpp

    threads = os.cpu_count()
    model = llama_cpp.Llama(
        args.file, n_ctx=1024, n_batch=args.prompt, n_threads=threads, n_threads_batch=threads, n_gpu_layers=0,
        verbose=False,
    )
    ids = [(i + 1) * 2654435761 % 2**32 % model.n_vocab() for i in range(args.prompt)]

    def generate():
        model.reset()
        start = time.perf_counter()
        model.eval(ids)
        prompt = time.perf_counter() - start
        model.reset()
        model.eval(ids[:16])
        start = time.perf_counter()
        # The choice of tokens does not affect the time.
        for token in ids[: args.new]:
            model.eval([token])
        return {"promptMs": prompt * 1000, "tokensPerSecond": args.new / (time.perf_counter() - start)}

    peer.race(generate, args.runs, prompt=args.prompt, new=args.new)


if __name__ == "__main__":
    main()
