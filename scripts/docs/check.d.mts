/** The errors of a built site, one line each. */
export function problems(site: string): string[];
