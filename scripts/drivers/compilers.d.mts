export function forGlslang(text: string): string;
