/** Formats the command that resumes a run. */

/** Quotes an argument for the shell; on Windows with double quotes, which both of its shells accept. */
function quote(argument: string, windows: boolean): string {
  if (/^[\w@%+=:,./-]+$/.test(argument) || (windows && /^[\w@+=:,./\\-]+$/.test(argument))) return argument;
  return windows ? `"${argument}"` : `'${argument.replaceAll("'", String.raw`'\''`)}'`;
}

/** Returns the resume command. The run's options are stored in its folder, so it only names that, and the output format. */
export function formatResumeCommand(
  output: string,
  {
    json,
    data,
    profile,
  }: { json?: boolean | undefined; data?: readonly string[] | undefined; profile?: string | undefined } = {},
  windows = process.platform === "win32",
): string {
  const words = ["lowrank", "finetune", "--resume", output];
  // Standard input cannot be reread, so the command names it together with all other files.
  if (data?.includes("-")) for (const file of data) words.push("--data", file);
  if (profile !== undefined) words.push("--profile", profile);
  if (json === true) words.push("--json");
  return words.map((word) => quote(word, windows)).join(" ");
}
