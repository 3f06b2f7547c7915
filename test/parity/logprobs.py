"""Log-probabilities of greedy tokens: goldens/logprobs.json (README.md).

transformers' `compute_transition_scores` of raw logits, since a repetition penalty changes only `scores`, and the four
most likely tokens at each position.
"""

import json

import torch

import common
import families
import fill

PROMPTS = {"llama-tied": (3, 9), "llama-gemma3-capped": (7, 12), "gpt2": (2, 7)}
NEW, TOP = 8, 4


def texts(name):
    with common.float64():
        model = families.build(name) if name == "gpt2" else common.build(common.GOLDENS / name)
        made = []
        for i, length in enumerate(PROMPTS[name]):
            prompt = fill.integers(f"logprobs/{name}/{i}", (1, length), common.VOCAB - 3) + 3
            for penalty in (1.0, 1.4):
                out = model.generate(
                    common.ids_of(prompt),
                    attention_mask=torch.ones(1, length, dtype=torch.int64),
                    do_sample=False,
                    min_new_tokens=NEW,
                    max_new_tokens=NEW,
                    eos_token_id=None,
                    repetition_penalty=penalty,
                    pad_token_id=0,
                    output_logits=True,
                    output_scores=True,
                    return_dict_in_generate=True,
                )
                scores = model.compute_transition_scores(out.sequences, out.logits, normalize_logits=True)[0]
                top = [one[0].log_softmax(-1).topk(TOP) for one in out.logits]
                # With a near tie the test would depend on rounding.
                for one in (*out.logits, *out.scores):
                    sorted_ = one[0].topk(TOP + 1).values
                    assert (sorted_[:-1] - sorted_[1:]).min() > 1e-4, (name, i)
                made.append({
                    "prompt": prompt[0].tolist(), "repetitionPenalty": penalty, "tokens": out.sequences[0, length:].tolist(),
                    "logprobs": scores.tolist(), "top": [list(zip(t.indices.tolist(), t.values.tolist())) for t in top],
                })
    return made


if __name__ == "__main__":
    golden = {name: texts(name) for name in PROMPTS}
    (common.GOLDENS / "logprobs.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
