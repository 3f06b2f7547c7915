/**
 * The chat templates that adapters were trained with. A tokenizer asks for the template of the active adapters, so that
 * choosing, replacing and removing adapters changes its output.
 */
import { hasOption, optionName } from "../../arguments/option-name.js";
import { LowrankError } from "../../errors.js";
import type { Module } from "../../nn/module.js";
import { runsWithoutAdapters } from "./active.js";
import { readOrder } from "./order.js";
import { readNotes } from "./registry.js";

/** The templates of one source. */
export interface ChatTemplates {
  /** The template. */
  text: string;
  /** The template for conversations with tools, if it is a separate one. */
  tools: string | undefined;
  /** The name of the source in errors. */
  where: string;
}

/** The part of a tokenizer that adapters use. */
export abstract class TemplatedTokenizer {
  /** @internal Returns the templates of the active adapters; undefined if no adapter has any. */
  adapterTemplates: (() => ChatTemplates | undefined) | undefined;

  /** @internal Reads the templates stored in an adapter's folder. Throws `ERR_FILE_FORMAT`. */
  abstract readTemplates(folder: string): ChatTemplates | undefined;

  /** @internal Returns assigned templates, which override the templates of adapters. */
  abstract readAssignedTemplates(): ChatTemplates | undefined;

  /** @internal Returns the templates that currently render messages. Throws `ERR_FILE_FORMAT`. */
  abstract readCurrentTemplates(): ChatTemplates | undefined;

  /** @internal Assigns templates; undefined removes the assignment. */
  abstract assignTemplates(templates: ChatTemplates | undefined): void;
}

/** Returns the model's tokenizer if it can render messages. */
function findTokenizer(model: Module): TemplatedTokenizer | undefined {
  const { tokenizer } = model as { tokenizer?: unknown };
  return tokenizer instanceof TemplatedTokenizer ? tokenizer : undefined;
}

/** Reads the templates in an adapter's folder. Throws `ERR_FILE_FORMAT`. */
export function readTemplates(model: Module, folder: string | undefined): ChatTemplates | undefined {
  return folder === undefined ? undefined : findTokenizer(model)?.readTemplates(folder);
}

/** Records the templates of the adapter `name`; undefined if it has none. */
export function setTemplates(model: Module, name: string, templates: ChatTemplates | undefined): void {
  const note = readNotes(model).get(name);
  if (note === undefined) return;
  note.templates = templates;
  const tokenizer = findTokenizer(model);
  if (templates !== undefined && tokenizer !== undefined)
    tokenizer.adapterTemplates = () => findActiveTemplates(model);
}

/** Returns the templates of the adapters `names` that have any, with the adapter's name. */
function listTemplates(model: Module, names: readonly string[]): [string, ChatTemplates][] {
  const notes = readNotes(model);
  return names.flatMap((name): [string, ChatTemplates][] => {
    const templates = notes.get(name)?.templates;
    return templates === undefined ? [] : [[name, templates]];
  });
}

/** Advises how to set a chat template: with the command's flag, or the tokenizer's property. */
export function explainTemplates(): string {
  if (optionName("chatTemplate") !== "chatTemplate")
    return `give one with ${optionName("chatTemplate")} FILE`;
  return hasOption("chatTemplate")
    ? "set tokenizer.chatTemplate, or give finetune the option chatTemplate"
    : "set it in the model's folder as chat_template.jinja";
}

/** Models whose adapters were reported to have different templates, with the adapters' names. */
const reported = new WeakMap<Module, string>();

/**
 * Returns the templates for the adapters `names` of `model` together. If they differ, the first adapter's are used and a
 * process warning is emitted once.
 */
export function findTemplatesOfAll(model: Module, names: readonly string[]): ChatTemplates | undefined {
  const [first, ...rest] = listTemplates(model, names);
  if (first === undefined) return undefined;
  const [name, templates] = first;
  const others = rest
    .filter(([, candidate]) => !isSameTemplate(candidate, templates))
    .map(([other]) => other);
  const differing = JSON.stringify([name, ...others]);
  if (others.length > 0 && reported.get(model) !== differing) {
    reported.set(model, differing);
    process.emitWarning(
      `the adapters ${[name, ...others].map((adapter) => `"${adapter}"`).join(" and ")} were trained with different chat templates; ` +
        `using the one of "${name}"; ${explainTemplates()}`,
      { type: "LowrankWarning" },
    );
  }
  return templates;
}

/** Returns the templates of the model's active adapters. */
export function findActiveTemplates(model: Module): ChatTemplates | undefined {
  if (runsWithoutAdapters(model)) return undefined;
  // Called for every conversation, so it avoids walking the layers.
  const names = readOrder(model).map(({ name }) => name);
  return findTemplatesOfAll(model, names);
}

function isSameTemplate(a: ChatTemplates, b: ChatTemplates): boolean {
  return a.text === b.text && a.tools === b.tools;
}

/**
 * Returns the templates that currently render messages; undefined if there are none. An unreadable template also gives
 * undefined: rendering messages reports it, and callers that render none must not fail.
 */
export function findTemplatesInUse(model: Module): ChatTemplates | undefined {
  try {
    return findTokenizer(model)?.readCurrentTemplates();
  } catch (error) {
    if (error instanceof LowrankError) return undefined;
    throw error;
  }
}

/**
 * Returns the templates to store with the adapter `name`: assigned ones, else those that the adapter was loaded with,
 * else those in use. Null if the model's tokenizer has no template, undefined if the model has no tokenizer.
 */
export function selectTemplatesToStore(model: Module, name: string): ChatTemplates | null | undefined {
  const tokenizer = findTokenizer(model);
  if (tokenizer === undefined) return undefined;
  const assigned = tokenizer.readAssignedTemplates() ?? readNotes(model).get(name)?.templates;
  return assigned ?? findTemplatesInUse(model) ?? null;
}

/** Assigns the active adapters' templates to the tokenizer permanently, when the adapters are merged into the weights. */
export function keepTemplates(model: Module): void {
  const tokenizer = findTokenizer(model);
  const templates = findActiveTemplates(model);
  if (templates !== undefined && tokenizer?.readAssignedTemplates() === undefined)
    tokenizer?.assignTemplates(templates);
}
