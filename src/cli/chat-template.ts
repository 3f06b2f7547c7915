/** The option --chat-template. */
import { Option } from "commander";

export function chatTemplateOption(): Option {
  return new Option(
    "--chat-template <file>",
    "a file with the chat template for messages; default: the model's own",
  );
}
