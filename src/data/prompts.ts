/** Rows of prompt and completion: written by the chat template, or raw. */
import { optionName, optionSetting } from "../arguments/option-name.js";
import { pairMessages } from "../chat/prompted.js";
import type { Encoder } from "./encode.js";
import type { PromptFormat, TrainOn } from "./format.js";
import type { ChatRow, CompletionRow, TextRow } from "./rows.js";
import { createRowError, type Origin } from "./source/origin.js";

/** Whether the chat template writes rows of prompt and completion. */
export function usesTemplate(encoder: Encoder, format: PromptFormat): boolean {
  return format === "chat" || (format === "auto" && encoder.chat?.hasChatTemplate === true);
}

/**
 * Returns the rows as they are encoded: a prompt and its completion as a conversation if the chat template writes them.
 * In a conversation whose prompt is separate, the prompt is not trained on, unless `trainOn` is `"all"`.
 *
 * Throws `ERR_DATA_ROW` for a prompt of messages if the format is `"raw"`.
 */
export function formatPrompts(
  rows: readonly TextRow[],
  encoder: Encoder,
  { format, trainOn }: { format: PromptFormat; trainOn: TrainOn | undefined },
  origin: Origin,
): readonly TextRow[] {
  const templated = usesTemplate(encoder, format);
  return rows.map((row) => {
    if (row.kind === "completion") return templated ? convertPrompt(row) : row;
    if (row.kind !== "chat" || row.promptMessages === undefined) return row;
    if (format === "raw")
      throw createRowError(
        origin,
        row.line,
        `"prompt" is an array of messages, which ${optionName("promptFormat")} raw does not write; use ${optionSetting("promptFormat", "chat")}`,
      );
    return trainOn === "all" ? row : excludePrompt(row, row.promptMessages);
  });
}

function convertPrompt({ prompt, completion, ...row }: CompletionRow): ChatRow {
  return { ...row, kind: "chat", format: "prompt", messages: pairMessages(prompt, completion) };
}

/** Excludes the assistant's turns in the prompt from the loss. */
function excludePrompt(row: ChatRow, promptMessages: number): ChatRow {
  const earlier = row.messages
    .slice(0, promptMessages)
    .flatMap(({ role }, i) => (role === "assistant" ? [i] : []));
  if (earlier.length === 0) return row;
  return { ...row, unweighted: [...new Set([...earlier, ...(row.unweighted ?? [])])] };
}
