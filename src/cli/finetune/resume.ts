/** The command that goes on with a run that was stopped. */

/** An argument as a shell takes it; in double quotes, which both kinds know, on Windows. */
function quoted(argument: string, windows: boolean): string {
  if (/^[\w@%+=:,./-]+$/.test(argument) || (windows && /^[\w@+=:,./\\-]+$/.test(argument))) return argument;
  return windows ? `"${argument}"` : `'${argument.replaceAll("'", String.raw`'\''`)}'`;
}

/** The run's own options are in its folder: the command names that, and how the run is told. */
export function resumeCommand(
  output: string,
  {
    json,
    data,
    profile,
  }: { json?: boolean | undefined; data?: readonly string[] | undefined; profile?: string | undefined } = {},
  windows = process.platform === "win32",
): string {
  const words = ["lowrank", "finetune", "--resume", output];
  // Standard input cannot be read twice, so the command names it and all other files.
  if (data?.includes("-")) for (const file of data) words.push("--data", file);
  if (profile !== undefined) words.push("--profile", profile);
  if (json === true) words.push("--json");
  return words.map((word) => quoted(word, windows)).join(" ");
}
