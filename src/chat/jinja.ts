/** Types for the used parts of the Jinja library, whose own types do not resolve in Node's modules. */
import * as jinja from "@huggingface/jinja";

/** A parsed template. */
export type Program = object;

/** The value of an expression: a text, a number, an array, a map, a function. */
export interface Value {
  value: unknown;
}

/** Variables by name. */
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

/** Parses a template with transformers' whitespace rules. Throws the library's errors. */
export function parse(source: string): Program {
  return parseTokens(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
}
