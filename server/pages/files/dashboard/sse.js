// Server-Sent Events out of the text of a stream. Pure: `fetch` brings the text, since EventSource can set no header.

/** @typedef {import("./types.d.ts").Message} Message */

/**
 * A parser: give it the text as it comes, in any pieces. Comments are no messages.
 * @param {(message: Message) => void} onMessage
 */
export function createParser(onMessage) {
  let rest = "";
  let event = "";
  let id = null;
  /** @type {string[]} */
  let data = [];

  function dispatch() {
    if (data.length) onMessage({ id, event: event || "message", data: data.join("\n") });
    event = "";
    id = null;
    data = [];
  }

  /** @param {string} line */
  function take(line) {
    if (line === "") return dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (field === "data") data.push(value);
    else if (field === "event") event = value;
    else if (field === "id" && !value.includes("\0")) id = value;
  }

  return (/** @type {string} */ text) => {
    rest += text;
    // A \r at the very end may be the first half of \r\n.
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) take(line);
  };
}
