/** Kinds of data files. */
export const DATA_FORMATS = ["txt", "jsonl"] as const;
export type DataFormat = (typeof DATA_FORMATS)[number];
