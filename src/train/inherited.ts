/** Chat templates and classes that a run inherits from its checkpoint or its start adapter. */
import type { ChatTemplates } from "../lora/adapter/chat-templates.js";
import { resolveFolder } from "../lora/formats/folder.js";
import { openCompanions } from "../models/companion-files.js";
import { readTemplateFile, readStoredTemplates } from "../models/chat-template-files.js";
import type { PretrainedModel } from "../models/pretrained.js";
import { findClasses, type Files } from "./prepare.js";
import type { Resumed } from "./resume.js";
import type { RunContext } from "./run.js";
import type { Settings } from "./settings.js";
import { readClasses } from "./start-adapter.js";

/**
 * Returns the chat template that overrides the model's. A resumed run uses the template in its checkpoint, because all
 * of its rows must be rendered alike. Any other run uses the option's template, or else the start adapter's.
 */
export function resolveTemplate(
  { adapter, chatTemplate, lora }: Settings,
  resumed: Resumed | undefined,
  { emit }: Pick<RunContext, "emit">,
): ChatTemplates | undefined {
  const given = chatTemplate === undefined ? undefined : readTemplateFile(chatTemplate);
  if (resumed === undefined && given === undefined && adapter !== undefined)
    return readStoredTemplates(openCompanions(adapter));
  const stored = resumed && readTemplates(resumed.checkpoint.folder, lora.name);
  if (given !== undefined && stored !== undefined && given.text !== stored.text) {
    const message = `${given.where} is not the chat template that the run began with; the run keeps using that template, from ${stored.where}`;
    emit({ type: "warning", message });
  }
  return stored ?? (given && { ...given, tools: undefined });
}

/** Returns the classes of the rows, in the order of the start adapter if there is one. */
export function resolveClasses(
  files: Files,
  model: string | PretrainedModel,
  { adapter, lora }: Settings,
  resumed: Resumed | undefined,
): string[] | undefined {
  if (adapter === undefined) return findClasses(files, model);
  const folder =
    resumed === undefined ? adapter : resolveFolder(resumed.checkpoint.folder, lora.name ?? "default");
  return findClasses(files, model, readClasses(folder));
}

function readTemplates(folder: string, name: string | undefined): ChatTemplates | undefined {
  return readStoredTemplates(openCompanions(resolveFolder(folder, name ?? "default")));
}
