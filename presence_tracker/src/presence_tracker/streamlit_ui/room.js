// The waiting room: what the server says to this participant, the place in line and the time, as they change.
const MINUTE_S = 60;

/** The text with its {placeholders} replaced, each value set off in bold. */
function fill(template, values) {
  const parts = template.split(/\{(\w+)\}/);
  return parts.map((part, i) => (i % 2 ? Object.assign(document.createElement("b"), { textContent: values[part] }) : part));
}

/** Each change is read aloud, so nothing is touched that says the same. */
function put(element, parts) {
  const now = document.createElement("p");
  now.append(...parts);
  if (element.innerHTML !== now.innerHTML) element.replaceChildren(...now.childNodes);
  element.hidden = !element.textContent;
}

/** The wait in words: `eta_s` is the median, `eta_max_s` the 90 % bound. */
function waitOf({ eta_s, eta_max_s }, texts) {
  if (eta_s == null) return fill(texts.wait_unknown, {});
  const minutes = Math.max(1, Math.ceil(eta_s / MINUTE_S));
  const most = Math.ceil((eta_max_s ?? eta_s) / MINUTE_S);
  if (most > minutes) return fill(texts.wait_range, { minutes, most });
  return fill(eta_s < MINUTE_S ? texts.wait_short : texts.wait, { minutes });
}

function render(element, interview, texts) {
  const isWaiting = interview.state === "waiting";
  put(element.querySelector(".message"), [interview.message]);
  put(element.querySelector(".place"), isWaiting && interview.position ? fill(texts.position, interview) : []);
  put(element.querySelector(".wait"), isWaiting ? waitOf(interview, texts) : []);
  element.querySelector(".room").dataset.state = interview.state;
}

export default function room({ data: { session, interview, texts }, parentElement }) {
  let latest = 0;

  function hear({ name, detail, at }) {
    if (name !== "interview") return put(parentElement.querySelector(".offline"), name === "offline" ? [texts.server_away] : []);
    if (at < latest || (detail.state !== "waiting" && detail.state !== "offered")) return;
    latest = at;
    render(parentElement, detail, texts);
  }

  parentElement.host.dataset.presenceRoom = "";
  render(parentElement, interview, texts);
  const life = listen(parentElement, session, hear);
  return () => life.abort();
}
