/** What `--language` says, of every command that trains or judges by speech. */
export const LANGUAGE = "what is spoken in audio, such as de or german, for a model of several languages";
