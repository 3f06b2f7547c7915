/** Names of languages: the codes of Whisper's tokens, and English names. */
import { didYouMean } from "../../arguments/suggest.js";

/** Whisper's languages, as code:name. */
const NAMES = [
  "en:english zh:chinese de:german es:spanish ru:russian ko:korean fr:french ja:japanese pt:portuguese",
  "tr:turkish pl:polish ca:catalan nl:dutch ar:arabic sv:swedish it:italian id:indonesian hi:hindi",
  "fi:finnish vi:vietnamese he:hebrew uk:ukrainian el:greek ms:malay cs:czech ro:romanian da:danish",
  "hu:hungarian ta:tamil no:norwegian th:thai ur:urdu hr:croatian bg:bulgarian lt:lithuanian la:latin",
  "mi:maori ml:malayalam cy:welsh sk:slovak te:telugu fa:persian lv:latvian bn:bengali sr:serbian",
  "az:azerbaijani sl:slovenian kn:kannada et:estonian mk:macedonian br:breton eu:basque is:icelandic",
  "hy:armenian ne:nepali mn:mongolian bs:bosnian kk:kazakh sq:albanian sw:swahili gl:galician",
  "mr:marathi pa:punjabi si:sinhala km:khmer sn:shona yo:yoruba so:somali af:afrikaans oc:occitan",
  "ka:georgian be:belarusian tg:tajik sd:sindhi gu:gujarati am:amharic yi:yiddish lo:lao uz:uzbek",
  "fo:faroese ht:haitian_creole ps:pashto tk:turkmen nn:nynorsk mt:maltese sa:sanskrit lb:luxembourgish",
  "my:myanmar bo:tibetan tl:tagalog mg:malagasy as:assamese tt:tatar haw:hawaiian ln:lingala ha:hausa",
  "ba:bashkir jw:javanese su:sundanese yue:cantonese",
]
  .join(" ")
  .split(" ")
  .map((pair) => pair.replace("_", " ").split(":") as [code: string, name: string]);

/** Alternative names. */
const OTHER_NAMES: Readonly<Record<string, string>> = {
  burmese: "my",
  castilian: "es",
  flemish: "nl",
  haitian: "ht",
  letzeburgesch: "lb",
  mandarin: "zh",
  moldavian: "ro",
  moldovan: "ro",
  panjabi: "pa",
  pushto: "ps",
  sinhalese: "si",
  valencian: "ca",
};

/**
 * Returns the code of a language given as a code, `de`, a token, `<|de|>`, or an English name, `german`; any other text
 * in lower case.
 */
export function resolveLanguage(given: string): string {
  const name = given.trim().toLowerCase();
  const named = NAMES.find((pair) => pair[1] === name)?.[0] ?? OTHER_NAMES[name];
  return named ?? name.replace(/^<\|(.*)\|>$/, "$1");
}

/** Returns ` (did you mean german?)` for a misspelled name, if it resembles a language with one of these codes. */
export function suggestLanguage(name: string, codes: readonly string[]): string {
  return didYouMean(
    name,
    NAMES.flatMap(([code, english]) => (codes.includes(code) ? [english] : [])),
  );
}
