/**
 * Python patterns: translations, and refusals by name. Expected matches are the results of Python 3.11's
 * re.fullmatch.
 */
import test from "ava";
import { compilePythonRegex } from "../../src/lora/options/python-regex.js";
import { compilePatterns } from "../../src/lora/options/patterns.js";

/** A pattern, texts that match in full, and texts that do not. */
const MATCHES: [pattern: string, hits: string[], misses: string[]][] = [
  [String.raw`.*layers\.1\.(q|k)_proj`, ["a.layers.1.q_proj"], ["a.layers.1.v_proj", "a.layers.1.q_proj.x"]],
  [String.raw`(?P<list>\w+)\.(?P=list)`, ["h.h"], ["h.g"]],
  [String.raw`(?i)Q_PROJ`, ["q_proj", "Q_Proj"], ["k_proj"]],
  [String.raw`q\_proj\-a`, ["q_proj-a"], ["q_proja"]],
  [String.raw`\Aq_proj\Z`, ["q_proj"], ["q_projx"]],
  [String.raw`layers.{,2}`, ["layers", "layers.1"], ["layers.10"]],
  [String.raw`a{b}`, ["a{b}"], ["ab"]],
  [String.raw`a{2}`, ["aa"], ["a{2}"]],
  [String.raw`[]a]+`, ["]a"], ["b"]],
  [String.raw`[^]]`, ["a"], ["]"]],
  [String.raw`[\w-]+`, ["q-proj"], ["q.proj"]],
  [String.raw`q(?#the query)_proj`, ["q_proj"], ["q(?#the query)_proj"]],
  [String.raw`(?:q|v)_proj`, ["v_proj"], ["_proj"]],
  [String.raw`(?!k).*_proj`, ["q_proj"], ["k_proj"]],
  [String.raw`(?<!x)a`, ["a"], ["xa"]],
  [String.raw`\U00000061\x62\u0063\a`, ["abc\x07"], ["abc"]],
  ["q|v", ["q", "v"], ["qv", "q_proj"]],
];

for (const [pattern, hits, misses] of MATCHES) {
  test(`${pattern} matches as in Python`, (t) => {
    const regex = compilePythonRegex(pattern, "targetModules");
    for (const hit of hits) t.true(regex.test(hit), hit);
    for (const miss of misses) t.false(regex.test(miss), miss);
  });
}

const REFUSED: [pattern: string, message: RegExp][] = [
  ["(?>a)b", /atomic group/],
  ["a++", /possessive quantifier/],
  ["a{2}+", /possessive quantifier/],
  ["(a)?(?(1)b|c)", /conditional group/],
  [String.raw`\N{DIGIT ONE}`, /by its name/],
  ["(?x) a b", /flag \(\?x/],
  ["(?i:a)b", /flags within the pattern, \(\?i:…\)/],
  ["a(", /no regular expression: Unterminated group/],
  ["*a", /no regular expression: Nothing to repeat/],
  [String.raw`\q`, /no regular expression/],
];

for (const [pattern, message] of REFUSED) {
  test(`${pattern} is refused by name`, (t) => {
    t.throws(() => compilePythonRegex(pattern, "excludeModules"), { code: "ERR_OPTION", message });
    t.throws(() => compilePythonRegex(pattern, "excludeModules"), { message: /^excludeModules: "/ });
  });
}

test("a path gets the value of the first key that matches its end", (t) => {
  const of = compilePatterns({ "layers.0.q": 4, "q|v": 3, v: 2, "(?:k)": 9 }, "rankPattern");
  t.is(of("model.layers.0.q"), 4);
  t.is(of("model.layers.1.q"), 3);
  t.is(of("v"), 3);
  t.is(of("model.layers.0.k"), 9);
  t.is(of("model.xv"), undefined);
});
