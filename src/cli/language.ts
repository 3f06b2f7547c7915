/** Help text of `--language` for all commands that use speech. */
export const LANGUAGE = "the language spoken in audio, such as de or german, for multilingual models";
