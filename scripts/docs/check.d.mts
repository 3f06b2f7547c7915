/** What is wrong with a built site, a line each. */
export function problems(site: string): string[];
