// Emulates the environment of Electron's utility process over the channel of a forked one: `process.parentPort`,
// whose messages are events with `data` and `ports`, and the ports (MessagePortMain) that come with them. Loaded by
// --import.
import { EventEmitter } from "node:events";

const { send } = process;
const post = (message) => process.connected && send.call(process, message);
/** Received ports, by number. */
const ports = new Map();

/** Messages wait for the first listener, as in Electron. */
class Port extends EventEmitter {
  #waiting = [];
  #started = false;

  constructor(number) {
    super();
    this.number = number;
  }

  postMessage(data) {
    post({ utility: { port: this.number, data } });
  }

  /** Delivers waiting messages later, never within the call. */
  start() {
    process.nextTick(() => {
      this.#started = true;
      for (const event of this.#waiting.splice(0)) this.emit("message", event);
    });
  }

  take(event) {
    if (this.#started) this.emit("message", event);
    else this.#waiting.push(event);
  }
}

class MessagePortMain extends Port {
  close() {
    ports.delete(this.number);
    post({ utility: { port: this.number, closed: true } });
  }
}

const parent = new Port(0);
// A utility process lacks the functions of a forked process.
process.send = undefined;
process.parentPort = parent;
parent.once("newListener", () => parent.start());

process.on("message", ({ utility }) => {
  if (utility === undefined) return;
  const { port: number, data, closed, carried = [] } = utility;
  if (number !== 0) {
    const port = ports.get(number);
    if (closed !== true) port?.take({ data, ports: [] });
    else if (ports.delete(number)) port.emit("close");
    return;
  }
  const came = carried.map((one) => {
    const port = new MessagePortMain(one);
    ports.set(one, port);
    return port;
  });
  parent.take({ data, ports: came });
});
// The system ends a utility process whose parent is gone.
process.on("disconnect", () => process.exit(0));
