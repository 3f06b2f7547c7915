/** Translates Python's regular expressions, which PEFT's configurations use, to JavaScript's. */
import { createContext, Script } from "node:vm";

import { LowrankError } from "../../errors.js";

/** Wraps a pattern before it is compiled. */
export type Fit = (body: string) => string;

/** Matches like Python's `re.fullmatch`. */
const anchorWhole: Fit = (body) => `^(?:${body})$`;

/** Escapes a path so that the pattern matches only it. */
export function escapePath(path: string): string {
  return path.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
}

/**
 * Compiles a pattern, translating syntax that differs between the languages. Throws `ERR_OPTION`, naming `option`, for
 * syntax that JavaScript lacks and for patterns that do not compile.
 */
export function compilePythonRegex(source: string, option: string, fit: Fit = anchorWhole): RegExp {
  const refuse = (what: string, cause?: unknown): never => {
    throw new LowrankError("ERR_OPTION", `${option}: "${source}" ${what}`, { cause });
  };
  const { body, flags } = new Translation(source, (what) =>
    refuse(`has ${what}, which JavaScript lacks`),
  ).run();
  try {
    return limitTime(new RegExp(fit(body), flags), () =>
      refuse(
        "takes too long to match: a part that repeats holds a repetition; write it without the one or the other",
      ),
    );
  } catch (cause) {
    const reason = (cause as Error).message.replace(/^Invalid regular expression: .*: /, "");
    return refuse(`is no regular expression: ${reason}`, cause);
  }
}

/** Time limit for all matches of a pattern together, in milliseconds. */
const TIME = 2000;
/** The number of unnested repetitions up to which matching a path of usual length is fast. */
const REPETITIONS = 4;

const context: { match?: () => void } = createContext({});
const script = new Script("match()");

/** Limits a pattern's matching time to `TIME` if it could backtrack excessively, since adapter files may be untrusted. */
function limitTime(pattern: RegExp, tooLong: () => never): RegExp {
  const { source, flags } = pattern;
  const repetitions = source.match(/[*+{]/g)?.length ?? 0;
  if (repetitions <= REPETITIONS && !/\)[*+{]/.test(source)) return pattern;
  let left = TIME;
  return new (class extends RegExp {
    override exec(text: string): RegExpExecArray | null {
      let found: RegExpExecArray | null = null;
      context.match = (): void => void (found = super.exec(text));
      const began = performance.now();
      try {
        script.runInContext(context, { timeout: Math.max(1, Math.ceil(left)) });
      } catch {
        return tooLong();
      } finally {
        left -= performance.now() - began;
      }
      return found;
    }
  })(source, flags);
}

/** Letters of escapes for character sets, after which Python reads a hyphen literally. */
const SETS = "wWdDsS";
/** Escapes with the same meaning in both languages. */
const SHARED = new Set("wWdDsSbBnrtfvx0123456789u");

/** Translates a pattern in one pass, copying syntax that both languages share. */
class Translation {
  private at = 0;
  private out = "";
  private flags = "u";

  constructor(
    private readonly source: string,
    private readonly lacks: (what: string) => never,
  ) {}

  run(): { body: string; flags: string } {
    this.readGlobalFlags();
    while (this.at < this.source.length) this.translateNext();
    return { body: this.out, flags: this.flags };
  }

  private peek(length: number, from = this.at): string {
    return this.source.slice(from, from + length);
  }

  private take(length: number, as = this.peek(length)): void {
    this.at += length;
    this.out += as;
  }

  /** Reads `(?ims)` at the start. */
  private readGlobalFlags(): void {
    const [text, letters = ""] = /^\(\?([a-zA-Z]+)\)/.exec(this.source) ?? [];
    if (text === undefined) return;
    for (const letter of letters) {
      if (letter === "x" || letter === "L") this.lacks(`the flag (?${letter})`);
      // `u` is Python's default, and `a` is how JavaScript reads \w and \d, so both are dropped.
      if ("ims".includes(letter) && !this.flags.includes(letter)) this.flags += letter;
    }
    this.take(text.length, "");
  }

  private translateNext(): void {
    const next = this.peek(1);
    if (next === "\\") this.translateEscape();
    else if (next === "[") this.translateClass();
    else if (next === "(" && this.peek(2) === "(?") this.translateGroup();
    else if (next === "{") this.translateBrace();
    else if (next === "}" || next === "]") this.take(1, `\\${next}`);
    else if ("*+?".includes(next)) this.translateQuantifier(1);
    else this.take(1);
  }

  private translateEscape(inClass = false): void {
    const letter = this.peek(1, this.at + 1);
    if (letter === "A" && !inClass) return this.take(2, "(?<![\\s\\S])");
    if ((letter === "Z" || letter === "z") && !inClass) return this.take(2, "(?![\\s\\S])");
    if (letter === "a") return this.take(2, "\\x07");
    if (letter === "N") return this.lacks("a character by its name (\\N{…})");
    if (letter === "U") return this.take(10, `\\u{${this.peek(8, this.at + 2)}}`);
    // Python accepts an escape before any punctuation; JavaScript only before syntax characters.
    if (letter !== "" && !SHARED.has(letter) && !/[a-zA-Z]/.test(letter))
      return this.take(
        2,
        /[\^$\\.*+?()[\]{}|/-]/.test(letter) && (letter !== "-" || inClass) ? `\\${letter}` : letter,
      );
    return this.take(2);
  }

  private translateClass(): void {
    this.take(1);
    if (this.peek(1) === "^") this.take(1);
    // A leading bracket is literal.
    if (this.peek(1) === "]") this.take(1, "\\]");
    while (this.at < this.source.length && this.peek(1) !== "]") {
      if (this.peek(1) !== "\\") {
        this.take(1);
        continue;
      }
      const set = SETS.includes(this.peek(1, this.at + 1));
      this.translateEscape(true);
      if (set && this.peek(1) === "-") this.take(1, "\\-");
    }
    this.take(1);
  }

  private translateGroup(): void {
    const [name] = /^\(\?P<\w+>/.exec(this.peek(200)) ?? [];
    if (name !== undefined) return this.take(name.length, `(?<${name.slice(4)}`);
    const [reference, group = ""] = /^\(\?P=(\w+)\)/.exec(this.peek(200)) ?? [];
    if (reference !== undefined) return this.take(reference.length, `\\k<${group}>`);
    if (this.peek(3) === "(?#") {
      const end = this.source.indexOf(")", this.at);
      return this.take(end < 0 ? 3 : end - this.at + 1, end < 0 ? "(?#" : "");
    }
    if (this.peek(3) === "(?>") return this.lacks("an atomic group (?>…)");
    if (this.peek(3) === "(?(") return this.lacks("a conditional group (?(…)…)");
    const [flags] = /^\(\?[a-zA-Z]*(-[a-zA-Z]+)?[:)]/.exec(this.peek(20)) ?? [];
    if (flags !== undefined && flags !== "(?:") return this.lacks(`flags within the pattern, ${flags}…)`);
    return this.take(2);
  }

  /** Reads `{n}`, `{n,}`, `{,n}` or `{n,m}`; any other brace is literal. */
  private translateBrace(): void {
    const [text, least, most] = /^\{(\d*)(,?\d*)\}/.exec(this.peek(40)) ?? [];
    if (text === undefined || text === "{}") return this.take(1, "\\{");
    return this.translateQuantifier(text.length, `{${least === "" ? 0 : least}${most}}`);
  }

  private translateQuantifier(length: number, as?: string): void {
    this.take(length, as);
    if (this.peek(1) === "?") this.take(1);
    else if (this.peek(1) === "+") this.lacks("a possessive quantifier");
  }
}
