/**
 * Imported before the command line: LOWRANK_SIGNAL_AT, "SIGINT step", makes the process send itself a signal when
 * it reports the first event of a kind. A signal from the reader of the events might arrive after the end of the
 * run.
 */
const [signal, type] = process.env.LOWRANK_SIGNAL_AT.split(" ");
const write = process.stdout.write.bind(process.stdout);
let sent = false;
process.stdout.write = (text, ...rest) => {
  const more = write(text, ...rest);
  if (!sent && String(text).includes(`"type":"${type}"`)) {
    sent = true;
    process.kill(process.pid, signal);
  }
  return more;
};
