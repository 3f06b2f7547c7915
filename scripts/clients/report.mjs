// Runs a client's calls and prints the outcome of each as a line of JSON.
import assert from "node:assert/strict";

/** The server's address, token and model, the questions, and the answers that a plain request gets. */
export const GIVEN = JSON.parse(process.env.LOWRANK_CLIENT);

/** Runs calls by their names. Each checks its result, and returns what the table shows. */
export async function report(client, calls) {
  for (const [call, run] of Object.entries(calls)) {
    let line;
    try {
      line = { passed: true, outcome: await run() };
    } catch (error) {
      line = { passed: false, outcome: `${error.name}: ${error.message}` };
    }
    console.log(JSON.stringify({ client, call, ...line }));
  }
}

/** Checks the text of an answer and returns it. */
export function checkText(text, expected) {
  assert.equal(text, expected);
  return JSON.stringify(text);
}

/** Checks that a call fails with an error of this class and status; returns its message. */
export async function checkError(call, type, status, part) {
  const error = await call.then(
    () => undefined,
    (reason) => reason,
  );
  assert.ok(error instanceof type, `expected ${type.name}, got ${error}`);
  assert.equal(error.status ?? error.statusCode, status);
  assert.ok(error.message.includes(part), error.message);
  return `${error.name}: ${error.message}`;
}

/** Joins the texts of a stream. */
export async function join(stream, read = (text) => text) {
  let [text, count] = ["", 0];
  for await (const part of stream) {
    text += read(part) ?? "";
    count += 1;
  }
  assert.ok(count > 1, "the stream came in one part");
  return text;
}
