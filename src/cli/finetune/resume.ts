/** The command that goes on with a run that was stopped. */

function quoted(argument: string): string {
  return /^[\w@%+=:,./-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", String.raw`'\''`)}'`;
}

/** The arguments of the run that was stopped, with `--resume` alone, and without what goes against it. */
export function resumeCommand(argv: readonly string[]): string {
  const kept: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const argument = argv[i] ?? "";
    if (argument === "--yes" || argument.startsWith("--resume=")) continue;
    if (argument === "--resume") {
      const next = argv[i + 1];
      if (next !== undefined && !next.startsWith("-")) i++;
      continue;
    }
    kept.push(argument);
  }
  return ["lowrank", ...kept, "--resume"].map(quoted).join(" ");
}
