// Requests and answers over a port that also carries other messages: the page's end and the process's end.

/** Answers requests on a utility process's port with the handler of the requested name. */
export function answer(port, handlers) {
  port.on("message", async ({ data }) => {
    if (typeof data?.ask !== "string") return;
    const { ask, number, value } = data;
    const reply = (message) => port.postMessage({ answer: number, ...message });
    try {
      reply({ result: await handlers[ask](value, (part) => reply({ part })) });
    } catch (error) {
      reply({ error: { code: error.code, message: error.message } });
    }
  });
}

/** Sends requests over a page's port. */
export class Questions {
  #port;
  #open = new Map();
  #numbers = 0;

  constructor(port) {
    this.#port = port;
    port.addEventListener("message", ({ data }) => {
      const asked = this.#open.get(data?.answer);
      if (asked === undefined) return;
      if ("part" in data) {
        asked.tell?.(data.part);
        return;
      }
      this.#open.delete(data.answer);
      if ("error" in data)
        asked.reject(Object.assign(new Error(data.error.message), { code: data.error.code }));
      else asked.resolve(data.result);
    });
  }

  /** Requests `name` and resolves with the answer; `tell` receives progress messages before it. */
  ask(name, value, tell) {
    return new Promise((resolve, reject) => {
      const number = ++this.#numbers;
      this.#open.set(number, { resolve, reject, tell });
      this.#port.postMessage({ ask: name, number, value });
    });
  }

  /** The other end is gone: pending requests reject with `ERR_DISCONNECTED`. */
  lose() {
    const error = Object.assign(new Error("the process that trains has ended"), { code: "ERR_DISCONNECTED" });
    for (const { reject } of this.#open.values()) reject(error);
    this.#open.clear();
  }
}
