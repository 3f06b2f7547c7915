/** The option that gives a model a chat template. */
import { Option } from "commander";

export function chatTemplateOption(): Option {
  return new Option(
    "--chat-template <file>",
    "the template that messages are rendered by; the model's own unless given",
  );
}
