export function findPhrases(
  path: string,
  read: () => string,
): { line: number; text: string; remedy: string }[];
