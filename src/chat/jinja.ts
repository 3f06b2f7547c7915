/** The library that renders templates, as far as it is used. Its own types do not resolve in modules of Node. */
import * as jinja from "@huggingface/jinja";

/** A template, parsed. */
export type Program = object;

/** What an expression gives: a text, a number, an array, a map, a function. */
export interface Value {
  value: unknown;
}

/** Variables by their names. */
interface Environment {
  set(name: string, value: unknown): Value;
}

interface Interpreter {
  run(program: Program): Value;
  evaluate(statement: object | undefined, environment: Environment): Value;
}

export const Environment = jinja.Environment as new () => Environment;
export const Interpreter = jinja.Interpreter as new (environment: Environment) => Interpreter;

const parseTokens = jinja.parse as (tokens: object[]) => Program;
const tokenize = jinja.tokenize as (
  source: string,
  options: { lstrip_blocks: boolean; trim_blocks: boolean },
) => object[];

/** Parses a template with the whitespace rules that transformers has. Throws what the library throws. */
export function parse(source: string): Program {
  return parseTokens(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
}
