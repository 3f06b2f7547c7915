/** Formats of data files. */
export const DATA_FORMATS = ["txt", "jsonl", "ndjson", "json", "csv", "parquet"] as const;
export type DataFormat = (typeof DATA_FORMATS)[number];

/** The trained part of a row with a prompt or with turns. */
export const TRAIN_ON = ["assistant", "completion", "all"] as const;
export type TrainOn = (typeof TRAIN_ON)[number];
