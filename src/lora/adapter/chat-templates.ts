/**
 * The chat templates that adapters were trained with. A tokenizer asks for the template of the active adapters, so that
 * choosing, replacing and removing adapters changes its output.
 */
import { hasOption, optionName } from "../../option-name.js";
import { LowrankError } from "../../errors.js";
import type { Module } from "../../nn/module.js";
import { runsWithoutAdapters } from "./active.js";
import { orderOf } from "./order.js";
import { notesOf } from "./registry.js";

/** The templates of one source. */
export interface ChatTemplates {
  /** The template. */
  text: string;
  /** The template for conversations with tools, where there is another. */
  tools: string | undefined;
  /** What errors call the source. */
  where: string;
}

/** The part of a tokenizer that adapters deal with. */
export abstract class TemplatedTokenizer {
  /** @internal Gives the templates of the adapters that count; undefined where no adapter brought any. */
  adapterTemplates: (() => ChatTemplates | undefined) | undefined;

  /** @internal The templates stored in an adapter's folder. Throws `ERR_FILE_FORMAT`. */
  abstract templatesIn(folder: string): ChatTemplates | undefined;

  /** @internal Assigned templates, which override those of adapters. */
  abstract assignedTemplates(): ChatTemplates | undefined;

  /** @internal The templates that messages are rendered with now. Throws `ERR_FILE_FORMAT`. */
  abstract currentTemplates(): ChatTemplates | undefined;

  /** @internal Assigns templates; undefined takes assigned ones back. */
  abstract assignTemplates(templates: ChatTemplates | undefined): void;
}

/** The tokenizer of a model, where it has one that renders messages. */
function tokenizerOf(model: Module): TemplatedTokenizer | undefined {
  const { tokenizer } = model as { tokenizer?: unknown };
  return tokenizer instanceof TemplatedTokenizer ? tokenizer : undefined;
}

/** Reads the templates in an adapter's folder. Throws `ERR_FILE_FORMAT`. */
export function readTemplates(model: Module, folder: string | undefined): ChatTemplates | undefined {
  return folder === undefined ? undefined : tokenizerOf(model)?.templatesIn(folder);
}

/** Records the templates of the adapter `name`; undefined where it brought none. */
export function setTemplates(model: Module, name: string, templates: ChatTemplates | undefined): void {
  const note = notesOf(model).get(name);
  if (note === undefined) return;
  note.templates = templates;
  const tokenizer = tokenizerOf(model);
  if (templates !== undefined && tokenizer !== undefined)
    tokenizer.adapterTemplates = () => activeTemplates(model);
}

/** The templates of some adapters, each with the adapter's name, in their order. */
function templatesByAdapter(model: Module, names: readonly string[]): [string, ChatTemplates][] {
  const notes = notesOf(model);
  return names.flatMap((name): [string, ChatTemplates][] => {
    const templates = notes.get(name)?.templates;
    return templates === undefined ? [] : [[name, templates]];
  });
}

/** How a chat template is given: by the flag of a command that takes one, or by the tokenizer's property. */
export function templateAdvice(): string {
  if (optionName("chatTemplate") !== "chatTemplate")
    return `give one with ${optionName("chatTemplate")} FILE`;
  return hasOption("chatTemplate")
    ? "set tokenizer.chatTemplate, or give finetune the option chatTemplate"
    : "set it in the model's folder as chat_template.jinja";
}

/** Models whose adapters have been reported to differ, with the names that were reported. */
const reported = new WeakMap<Module, string>();

/**
 * The templates that the adapters `names` of `model` were trained with together. Of several that differ it is the first
 * adapter's, and a warning of the process says so, once.
 */
export function templatesOfAll(model: Module, names: readonly string[]): ChatTemplates | undefined {
  const [first, ...rest] = templatesByAdapter(model, names);
  if (first === undefined) return undefined;
  const [name, templates] = first;
  const others = rest.filter(([, one]) => !areSame(one, templates)).map(([other]) => other);
  const differing = JSON.stringify([name, ...others]);
  if (others.length > 0 && reported.get(model) !== differing) {
    reported.set(model, differing);
    process.emitWarning(
      `the adapters ${[name, ...others].map((one) => `"${one}"`).join(" and ")} were trained with different chat templates; ` +
        `using the one of "${name}"; ${templateAdvice()}`,
      { type: "LowrankWarning" },
    );
  }
  return templates;
}

/** The templates that the adapters of `model` which count were trained with. */
export function activeTemplates(model: Module): ChatTemplates | undefined {
  if (runsWithoutAdapters(model)) return undefined;
  // Asked for once for each conversation: the layers, which would have to be walked, are not.
  const names = orderOf(model).map(({ name }) => name);
  return templatesOfAll(model, names);
}

function areSame(a: ChatTemplates, b: ChatTemplates): boolean {
  return a.text === b.text && a.tools === b.tools;
}

/**
 * The templates that messages are rendered with now; undefined where there are none. A template that cannot be read is
 * reported by whatever renders messages, and is no reason to fail what renders none.
 */
export function templatesInUse(model: Module): ChatTemplates | undefined {
  try {
    return tokenizerOf(model)?.currentTemplates();
  } catch (error) {
    if (error instanceof LowrankError) return undefined;
    throw error;
  }
}

/**
 * The templates to store with the adapter `name`: the assigned ones, else those that the adapter was loaded with, else
 * those in use. Null where the model has a tokenizer without a template, undefined where it has none.
 */
export function templatesToStore(model: Module, name: string): ChatTemplates | null | undefined {
  const tokenizer = tokenizerOf(model);
  if (tokenizer === undefined) return undefined;
  const own = tokenizer.assignedTemplates() ?? notesOf(model).get(name)?.templates;
  return own ?? templatesInUse(model) ?? null;
}

/** Gives the tokenizer for good what the adapters that count were trained with, as their sum becomes the model's weights. */
export function keepTemplates(model: Module): void {
  const tokenizer = tokenizerOf(model);
  const templates = activeTemplates(model);
  if (templates !== undefined && tokenizer?.assignedTemplates() === undefined)
    tokenizer?.assignTemplates(templates);
}
