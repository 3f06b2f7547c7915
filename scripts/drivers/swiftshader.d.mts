export function check(bytes: Uint8Array, expected?: string): void;
