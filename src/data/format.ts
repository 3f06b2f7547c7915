/** Formats of data files. */
export const DATA_FORMATS = ["txt", "jsonl", "ndjson", "json", "csv", "parquet"] as const;
export type DataFormat = (typeof DATA_FORMATS)[number];

/** The trained part of a row with a prompt or with turns. */
export const TRAIN_ON = ["assistant", "completion", "all"] as const;
export type TrainOn = (typeof TRAIN_ON)[number];

/** The text of a row of prompt and completion: as the chat template writes it, or the two texts joined. */
export const PROMPT_FORMATS = ["auto", "chat", "raw"] as const;
export type PromptFormat = (typeof PROMPT_FORMATS)[number];
