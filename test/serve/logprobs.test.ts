/** The log-probabilities of completions name each alternative differently. */
import test from "ava";

import { formatCompletionLogprobs } from "../../src/serve/logprobs.js";

test("alternatives that are parts of characters are named by their bytes", (t) => {
  const alternative = (token: number, ...bytes: number[]) => ({
    ...{ token, logprob: -token },
    ...{ text: Buffer.from(bytes).toString(), bytes: Uint8Array.from(bytes) },
  });
  const topLogprobs = [
    alternative(1, 0xe6),
    alternative(2, 0xe7),
    alternative(3, 0xe6, 0xbc),
    alternative(4, 0x61),
    alternative(5, 0xef, 0xbf, 0xbd),
  ];
  const piece = { text: "a", token: 4, logprob: -4, topLogprobs };
  t.like(formatCompletionLogprobs([piece], 0), {
    top_logprobs: [
      {
        "bytes:\\xe6": -1,
        "bytes:\\xe7": -2,
        "bytes:\\xe6\\xbc": -3,
        a: -4,
        "\ufffd": -5,
      },
    ],
  });
});
