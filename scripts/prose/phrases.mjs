/** Phrases that readers stumble over, each with what to write instead. Only those that are never the right words. */
export const PHRASES = [
  [/\b(?:that|those) of\b/i, "repeat the noun"],
  [/\b(?:by|of|with) whose\b|\bfor whom\b|\bwhose what\b/i, "write two sentences, or a noun"],
  [/\b(?:go(?:es)?|going|went) on\b/i, "continue or resume"],
  [/\bgo(?:es)? by\b|\bgo(?:es)? before\b/i, "uses, matches or overrides"],
  [/\b(?:held|kept) to\b/i, "limited to, or checked against"],
  [/\banew\b|\bforetells?\b|\bforetold\b/i, "again, or predicts"],
  [/\bhence\b|\bthereof\b|\bwhoever\b|\bin the place of\b/i, "so, its, a noun, or instead of"],
  [/\bnobody\b|\bsomebody\b|\bsees? to\b/i, "name the caller, the user or the function"],
  [/\bunasked\b|\bunless (?:asked|given)\b/i, "by default"],
  [/\bas ever\b|\bas (?:it|they) (?:lies?|stands?)\b/i, "unchanged, or in place"],
  [/\b(?:of|by) (?:their|his) own\b/i, "separate"],
  [/\bhow it (?:goes|went)\b|\bcame of it\b/i, "progress, or result"],
  [/\bfor the rest\b|\bto and fro\b|\bthe like of\b/i, "otherwise, or name the things"],
];
