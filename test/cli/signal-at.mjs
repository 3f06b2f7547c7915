/**
 * Imported before the command line: LOWRANK_SIGNAL_AT, "SIGINT step", has the process send itself a signal as it tells of its
 * first event of a kind. Sent by whoever reads the events it might arrive once the run is over.
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
